"""The files that the agent may read, opened safely.

Rule: default-deny; no symbolic link is followed below a root.
"""
