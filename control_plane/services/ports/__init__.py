"""What the services need from the outside, as Protocols: one module for each neighbour.

Rule: an adapter translates every foreign exception to services.errors. Instants are seconds since the epoch (UTC).
"""
