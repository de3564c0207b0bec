"""One file per process: reads the environment, picks the backends, imports anything; imported by nobody."""
