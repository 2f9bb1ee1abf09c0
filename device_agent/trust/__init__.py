"""Signatures on the device: its own key, whose commands it obeys, and the folder's file that decides about both.

Rule: an agent without a stored root of trust imports `mode` and `roles` of this package alone, and no PyNaCl.
"""
