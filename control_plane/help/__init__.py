"""The documents of this version, as pages below /help: offline, from the installed package.

Rule: read from files that belong to the version; nothing of the fleet, no script, nothing of another host.
"""
