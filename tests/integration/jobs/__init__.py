"""Jobs over a real database, with devices that answer at once."""
