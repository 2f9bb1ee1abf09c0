"""Tests of `device_agent.sealing`."""
