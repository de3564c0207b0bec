"""The one door for clients: assignment, parameters, waiting requests in batches, the log before the answer."""
