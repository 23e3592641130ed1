"""What can go, and what it costs: weights, sensitivities, curves and a proposal, as files and as one page."""
