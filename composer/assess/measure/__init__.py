"""The measurements of an assessment."""
