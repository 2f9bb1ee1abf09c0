"""Queries about the device: their answers, and the selections that are made for them.

Rule: what reads folders or files runs on a worker.
"""
