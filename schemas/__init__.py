"""The contract between the two sides: topics, messages, values and the part plan.

Rule: imports nothing else of this project. Only `schemas.generate` and `schemas.signing.key_files` do IO.
"""
