"""The program on the device: it receives commands over MQTT and PUTs files to presigned URLs.

Rule: imports only `schemas`, msgspec and paho, because it runs on small machines.
"""

from typing import Final

VERSION: Final = "0.1.0"
"""The agent's version; a test compares it with the package's."""
