"""Ed25519 keys: signatures, and the files in which private keys are kept.

Rule: PyNaCl is needed here and imported nowhere else in `schemas`.
"""
