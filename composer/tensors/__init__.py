"""Tensors in, tensors out: masks, ranking, capturing, closed forms. No files and no tasks."""
