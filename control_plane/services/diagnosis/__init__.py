"""What is wrong with this control plane and its neighbours, each finding with its remedy.

Rule: one list of findings, for `backhaul doctor` and for REST alike.
"""
