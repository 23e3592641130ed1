"""What `compose demo` runs on: a tiny model, a corpus made by a grammar, and a recipe."""
