"""Rates, budgets and their shares in SQL.

Rule: what the gate decides is decided in `domain.gate`; here are only rows.
"""
