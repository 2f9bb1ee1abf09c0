"""Signed messages on the side of the control plane: its key, the judgement of what arrives, the documents of trust.

Rule: a message is verified after its client's budget, and before anything decodes it.
"""
