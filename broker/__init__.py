"""Everything about the broker that is not a message: how to start one, lock it and let devices in.

Rule: nothing here speaks MQTT. The package starts processes and writes files; topics come from `schemas.topics`.
"""
