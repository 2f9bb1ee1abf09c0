"""The device's own limits."""
