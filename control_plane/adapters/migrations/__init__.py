"""The schema's history, from the first revision on; `adapters.database.migration` runs it.

Rule: a revision that was released is never edited. It spells its tables out, since models change and history does not.
"""
