"""What the control plane does: one writer of uploads, the outbox that performs duties, the inbox that hears devices.

Rule: services know the domain and the ports, never an adapter.
"""
