"""Whether an execution may begin and whether bytes may leave a device, as pure functions.

Rule: no IO and no clock.
"""
