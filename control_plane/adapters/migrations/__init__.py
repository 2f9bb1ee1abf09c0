"""The schema's history, from the first revision on; `adapters.database.migration` runs it.

Rule: a released revision is never edited. It defines its tables itself, since the models change.
"""
