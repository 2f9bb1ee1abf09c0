"""The agent's state for the people and programs of its device.

Rule: nothing is written at rest. The agent answers each connection to a socket.
"""
