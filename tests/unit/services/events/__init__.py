"""Tests of event streams and webhooks."""
