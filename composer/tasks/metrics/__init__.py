"""What a task is measured by: the table of all metrics, and those that no library computes."""
