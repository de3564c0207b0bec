"""Runs of training and other pipelines: recorded, queued, retried, cancelled, scheduled, resumed after a crash."""
