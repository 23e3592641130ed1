"""`compose plan`: how much work a scheme is, what it takes in bytes and seconds, and whether composing pays."""
