"""What each code means, what to do about it, and what ends it.

Rule: texts for people only; no logic reads them.
"""
