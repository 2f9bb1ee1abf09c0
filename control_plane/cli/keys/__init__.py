"""`backhaul keys`: the root of trust of a fleet, and the list of keys that its agents obey.

Rule: root keys are read here and nowhere else; a control plane never sees one.
"""
