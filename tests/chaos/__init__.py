"""Whole sites under a nemesis, for minutes; `pytest -m chaos`."""
