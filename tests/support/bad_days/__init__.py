"""What makes a bad day: a front before a server, a network namespace, an impatient agent.

Rule: the agent is the real program; only its surroundings are replaced, and the pauses between its connections.
"""
