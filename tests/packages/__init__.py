"""The packages of the agent: their contents, and their life on real systems."""
