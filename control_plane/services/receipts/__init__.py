"""Receipts of completed uploads: asked of the device, witnessed, stored beside the object, verified.

Rule: an upload is completed without its receipt. Keys come from the database, never from the object store.
"""
