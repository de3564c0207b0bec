"""The model server: one process, one package. Verify, load, warm up, check the golden answers, and only then be ready."""
