"""Tests of `device_agent.trust`."""
