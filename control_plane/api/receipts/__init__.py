"""Receipts over REST."""
