"""What the services need from the outside, as Protocols: one module per neighbour.

Rule: an adapter translates every foreign exception to services.errors. Instants are seconds since the epoch (UTC).
"""
