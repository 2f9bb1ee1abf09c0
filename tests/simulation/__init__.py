"""The whole system in one process and no time: real services and real agents over models of disk, broker and S3.

Rule: one seed is one history, for ever. What is not ours is a model; whatever is ours runs as it is shipped.
"""
