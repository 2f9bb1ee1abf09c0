"""The agent's metrics: the figures of one moment, their text, and where it goes.

Rule: the loop makes the figures; threads of this package only carry text.
"""
