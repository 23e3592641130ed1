"""What is removed goes away: from a masked folder to a smaller model that gives the same answers."""
