"""Fleets whose messages are signed, as real processes."""
