"""The program on the device: it is told by MQTT which file to upload, and PUTs it to presigned URLs.

Rule: imports nothing of ours but `schemas`, and nothing foreign but msgspec and paho, for it runs on small machines.
"""

from typing import Final

VERSION: Final = "0.1.0"
"""The agent's version; a test compares it with the package's."""
