"""Watching what is served: drift, missing and excessive answers, traffic, and the alerts they raise."""
