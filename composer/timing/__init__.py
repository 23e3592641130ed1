"""How long models take: runs in turn, medians with their spread, ratios with an interval, memory, MACs."""
