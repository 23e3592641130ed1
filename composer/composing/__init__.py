"""From the library to a model."""
