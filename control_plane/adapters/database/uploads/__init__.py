"""Uploads, their parts and their outbox in SQL.

Rule: arguments and results are the domain's.
"""
