"""Programs that a model wrote, run where they can hurt nothing (Linux)."""
