"""Tests of the chain of the audit and of its check."""
