"""What the database promises about jobs."""
