"""The threads that do the file and network work of an upload.

Rule: a worker posts one event for each piece of work; it reads no state of the loop.
"""
