"""Receipts, as both sides make them."""
