"""`backhaul-agent setup`: finds out what is missing, checks it, and writes one file of settings.

Rule: nothing is written before the end, and then at once. The password is never shown.
"""
