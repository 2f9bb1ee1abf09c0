"""Implementations of the ports: the object store, the broker, the database, and a database in memory."""
