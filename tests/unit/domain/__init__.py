"""Tests of the control plane's domain: no IO, no sleep."""
