"""Tests of the gate's pure functions."""
