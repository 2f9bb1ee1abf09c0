"""The commands of jobs, over REST.

Rule: a job belongs to the control plane; leaving a command never ends it.
"""
