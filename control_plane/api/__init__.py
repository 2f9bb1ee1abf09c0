"""REST: thin routers over `services.operations`. Parse, call, return a model.

Rule: a router calls `Operations` and nothing else; every failure becomes a problem document in one handler.
"""
