"""Tests of the documents and of the house rules."""
