"""A second agent, written from docs/protocol.md alone: bare paho, urllib and the standard library.

Rule: it imports nothing of the product, and keeps no journal but an `install_id` and an epoch, as section 12 allows.
Its settings are CLIENT_ID, MQTT_URL, UPLOAD_HOSTS, ALLOWED_ROOTS, FILE_PATH and STATE_DIR.
"""
