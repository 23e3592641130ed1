"""Stored blocks: the store, its manifests, its catalogue and its maintenance."""
