"""`backhaul conformance`: takes any agent through docs/protocol.md, and reports what it gets wrong.

Rule: the kit is the owner's side of the protocol, written for doubt: it trusts nothing that the agent sends, and it
shares no code with an agent.
"""
