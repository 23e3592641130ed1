"""From the library to a model: which stored blocks cover a configuration, and a folder with their weights."""
