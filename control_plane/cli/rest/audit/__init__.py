"""Commands of the audit.

Rule: as the package above.
"""
