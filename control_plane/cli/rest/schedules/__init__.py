"""The commands of schedules, over REST.

Rule: thin; one call of REST each.
"""
