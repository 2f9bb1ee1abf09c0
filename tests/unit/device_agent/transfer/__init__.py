"""The transfer machine."""
