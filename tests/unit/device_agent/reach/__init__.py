"""Tests of the ways on which connections leave the device."""
