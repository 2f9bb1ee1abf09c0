"""Commands that call the REST API.

Rule: client.py is the only module that imports httpx.
"""
