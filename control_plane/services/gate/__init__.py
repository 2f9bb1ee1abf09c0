"""The gate: asked before each dispatch of a job and before each grant of an upload.

Rule: no URL of a gated upload is signed without its decision.
"""
