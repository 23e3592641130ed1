"""The pages that show an assessment."""
