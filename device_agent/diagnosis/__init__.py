"""`backhaul-agent doctor`: what is wrong on this device, and what to do about it.

Rule: the standard library and the agent's own settings; it requests nothing of the control plane.
"""
