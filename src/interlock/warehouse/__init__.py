"""The door of data at rest: user tables, extracts, the prediction log. One port, one file an engine."""
