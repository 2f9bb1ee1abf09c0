"""Tests of the services over fakes: the engine runs, time stands still."""
