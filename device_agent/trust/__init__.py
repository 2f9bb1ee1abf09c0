"""Signatures on the device: its own key, whose commands it obeys, and the folder's file that decides about both.

Rule: an agent without a stored root of trust imports nothing of this package but `mode`, and no PyNaCl.
"""
