"""Which rates to take, from what was measured."""
