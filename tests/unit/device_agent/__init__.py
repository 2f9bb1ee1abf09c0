"""Tests of the device's side, without a socket."""
