"""Signatures of messages: canonical bytes, key names, keys, and the documents that list the trusted keys.

Rule: only `ed25519`, `trust` and `key_files` import PyNaCl. An agent without it can read everything else here.
"""
