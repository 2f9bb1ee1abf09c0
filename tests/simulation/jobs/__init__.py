"""Jobs over a fleet in virtual time: the shipped control plane over SQLite in memory, against modelled devices.

Rule: one seed is one history. Every transaction runs on the loop, so a control plane can be killed at any commit.
"""
