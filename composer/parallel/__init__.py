"""Processes: workers of this machine, of a Ray cluster, and the ranks that a launcher has started."""
