"""Secrets: where they must not be found, and which are refused."""
