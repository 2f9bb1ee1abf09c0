"""Attacks on enrolment, and what a revoked device can still do."""
