"""The whole system in one process, in virtual time: the shipped services and agents over models of disk, broker and S3.

Rule: one seed is one history. The project's own code runs as it is shipped; everything else is a model.
"""
