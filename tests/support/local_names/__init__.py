"""A folder for PYTHONPATH of a child process, with names that lead to this machine. Rule: no module of its own."""
