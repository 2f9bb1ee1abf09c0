"""What an operator watches in the database: its figures, and what it is before it is opened.

Rule: as in `adapters.database`: no row leaves this package.
"""
