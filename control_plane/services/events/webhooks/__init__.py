"""Webhooks: changes as HTTP requests to receivers that an operator names.

Rule: what is sent is a row before it is sent.
"""
