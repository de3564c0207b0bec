"""Benchmarks: one command each, medians and ratios in one run, JSON in `bench/results/`. Never an assertion in a test."""
