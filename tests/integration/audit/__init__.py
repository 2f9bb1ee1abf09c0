"""Tests of the audit over databases of SQL."""
