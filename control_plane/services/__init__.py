"""The services of the control plane: the writer of uploads, the outbox that performs duties, the inbox for messages.

Rule: services know the domain and the ports, never an adapter.
"""
