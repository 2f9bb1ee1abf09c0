"""Tests of the gate over a database of SQL, with a clock that only the test moves."""
