"""Use cases and background work for clients: the registry, the resync after a hello, and queries to a client.

Rule: clients are changed by compare-and-set on (epoch, sequence).
"""
