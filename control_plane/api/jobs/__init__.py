"""Jobs over REST: bodies, parameters, answers, routes.

Rule: thin; the use cases are in `services.jobs`.
"""
