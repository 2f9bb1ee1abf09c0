"""The audit: one record for each act of a caller, chained by digests, and signed checkpoints of the chains.

Rule: pure. What is hashed is text, so that another program checks a chain without this one.
"""
