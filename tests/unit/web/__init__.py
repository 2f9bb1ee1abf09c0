"""The files of the operator's page.

Rule: as the package above.
"""
