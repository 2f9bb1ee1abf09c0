"""What the agent keeps on disk across restarts.

Rule: every write is durable before anything depends on it.
"""
