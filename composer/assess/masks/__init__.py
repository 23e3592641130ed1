"""What two or more pruned models removed."""
