"""The threads' work."""
