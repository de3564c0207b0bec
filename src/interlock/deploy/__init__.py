"""Placement: which processes a project needs, and keeping them alive on this machine."""
