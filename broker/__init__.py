"""Starting and configuring brokers, and their accounts and access list.

Rule: no MQTT client here. The package starts processes and writes files; topics come from `schemas.topics`.
"""
