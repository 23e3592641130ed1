"""Simpler parts of a model: norms that are a scale and a shift, a ReLU for another activation."""
