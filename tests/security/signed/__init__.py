"""Attacks on signed messages."""
