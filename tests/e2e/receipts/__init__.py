"""Receipts with real processes."""
