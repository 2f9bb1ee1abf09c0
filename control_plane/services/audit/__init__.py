"""The audit: records in the transactions of the use cases, signed checkpoints, and what reads both.

Rule: a use case records with `recording.record`, inside the transaction that it acts in.
"""
