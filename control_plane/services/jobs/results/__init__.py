"""What became of each file of a job: read by pages, written in four formats, and reported beside the objects.

Rule: names no adapter.
"""
