"""Tests of `device_agent.enrolment`."""
