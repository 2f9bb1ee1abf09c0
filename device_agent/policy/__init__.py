"""What the owner of the device allows beside its settings: the policy file, and rules that hold without one.

Rule: it only narrows. A file, a host or a moment is used where the settings and the policy both allow it.
"""
