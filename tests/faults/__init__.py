"""Things that break on purpose, and what still holds."""
