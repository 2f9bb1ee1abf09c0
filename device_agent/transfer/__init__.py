"""The state machine of one upload on the device.

Rule: no IO, no clock, no random numbers: time and chance arrive in the event.
"""
