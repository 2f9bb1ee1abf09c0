"""Jobs, executions and their files in SQL.

Rule: arguments and results are the domain's Structs.
"""
