"""Commands that start a whole site on this machine: broker, object store, control plane, agents.

Rule: every child process ends with its parent.
"""
