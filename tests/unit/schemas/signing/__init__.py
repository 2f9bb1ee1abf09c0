"""Signatures of messages and the documents of trust.

Rule: nothing here opens a socket.
"""
