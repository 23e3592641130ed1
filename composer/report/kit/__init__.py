"""What pictures and pages are made of."""
