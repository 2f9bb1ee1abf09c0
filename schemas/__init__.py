"""The contract between the two sides: topics, messages, values and the part plan.

Rule: imports nothing of ours and does no IO.
"""
