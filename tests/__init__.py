"""The test suite: one folder for each kind of neighbour a test may have."""
