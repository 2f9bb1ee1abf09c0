"""The connection to the broker, and every message that the agent publishes.

Rule: only `connection` imports paho.
"""
