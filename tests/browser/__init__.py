"""The operator's page in a real browser, over a real site.

Rule: a test waits for what a person sees, never for a time.
"""
