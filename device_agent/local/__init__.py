"""The agent's state for the people and programs of its own device.

Rule: nothing is written at rest. The agent answers on a socket, when it is asked.
"""
