"""REST: thin routers over the services' use cases. Parse, call, return a model.

Rule: a router calls one use case and nothing else; every failure becomes a problem document in one handler.
"""
