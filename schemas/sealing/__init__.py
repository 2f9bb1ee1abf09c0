"""Sealed files, as both sides compute them: who may open one, its size, and its name.

Rule: no secret and no cipher is here; only the device seals.
"""
