"""Schedules over REST: bodies, answers, routes.

Rule: thin; the use cases are in `services.schedules`.
"""
