"""Offline evidence: what a version is worth, alone and against the champion, on identical rows."""
