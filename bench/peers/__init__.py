"""What each peer of `bench.bench_peers` serves. Every file runs in its peer's own environment, with MODEL_FILE set."""
