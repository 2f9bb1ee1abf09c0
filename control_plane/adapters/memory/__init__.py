"""The database in memory: for the direct MQTT CLI and for tests of services.

Rule: it does what the SQL database does; one suite of tests runs on both.
"""
