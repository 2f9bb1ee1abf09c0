"""The documents of trust over a database of SQL."""
