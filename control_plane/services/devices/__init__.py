"""Devices and their keys: enrolment, pins, revocation.

Rule: a change of a pin is durable before a message is judged by it.
"""
