"""Seconds of single pieces of work, measured through the own code of the engine."""
