"""Shared by all tests: hypothesis without a stop-watch (speed is measured in bench/), and in CI with fixed examples."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")
