"""Simulated devices: thousands in one process, each behaving at the broker as protocol.md requires of an agent.

Rule: imports `schemas` and the standard library only, so that a device costs a few packets and no library. What a
device would keep on its disk is kept in memory: the broker and the control plane are measured, not this.
"""
