"""Pins, enrolment and revocation of devices."""
