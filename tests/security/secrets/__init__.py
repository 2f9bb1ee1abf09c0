"""What must be refused."""
