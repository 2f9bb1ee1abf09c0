"""The statement and the envelope of a receipt."""
