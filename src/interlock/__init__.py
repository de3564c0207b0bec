"""Interlock: train, judge, sign, serve, log and watch models, with a person between training and serving."""

__version__ = "0.1.0"
