"""The use cases of jobs, and what runs them.

Rule: names no adapter.
"""
