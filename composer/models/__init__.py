"""A model folder and the family of its architecture."""
