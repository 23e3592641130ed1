"""What is to be made, as plain data: layouts, shapes, configurations and the graph of shared pieces. No torch."""
