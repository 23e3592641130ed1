"""What goes: criteria, cuts of targets, variants in a library."""
