"""Jobs: the request, its machine, its keys.

Rule: pure.
"""
