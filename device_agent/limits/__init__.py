"""What the owner of a device allows it to send: bytes of a day and a month, and conditions of the device.

Rule: decided here, and obeyed in `device_agent.uploads`; no command changes it.
"""
