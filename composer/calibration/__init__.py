"""What one pass over a few texts tells: moments of inputs, gradients, the base model as a teacher."""
