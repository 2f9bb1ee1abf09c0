"""`backhaul top`: the fleet in a terminal, live.

Rule: `model` and `feed` know no Textual, `screens` draws what they hold.
"""
