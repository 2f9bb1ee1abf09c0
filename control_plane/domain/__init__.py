"""Uploads, clients and their changes: data and pure state machines.

Rule: no IO, no clock, no randomness; time and identifiers arrive in events.
"""
