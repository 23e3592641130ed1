"""Models measured on their task."""
