"""What is done with a file after its upload."""
