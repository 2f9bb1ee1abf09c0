"""Tests of signed messages on the side of the control plane."""
