"""One file a library: how its models become bytes, come back safely, and predict."""
