"""The command line of the agent: its options, and the subcommands for a person on the device.

Rule: the running agent imports `parser` and `screen` only; a subcommand imports what it needs when it runs.
"""
