"""Whole sites under random faults for minutes; `pytest -m chaos`."""
