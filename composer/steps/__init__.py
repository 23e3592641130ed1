"""The steps of the work, one file for each command."""
