"""Tests of one module at a time, without socket, sleep or mock; the folders mirror the source tree."""
