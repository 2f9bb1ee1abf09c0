"""What an upload, a client and a job are, and how they change.

Rule: no IO, no clock, no randomness; time and identifiers arrive in events.
"""
