"""What the database promises about devices."""
