"""Receipts: an in-toto Statement about an object, in a DSSE envelope that device and control plane sign.

Rule: shapes and bytes only, without a key: who signs and who verifies stands in the two programs.
"""
