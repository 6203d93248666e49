"""HTTP: check what came in, call models and algorithm, answer."""
