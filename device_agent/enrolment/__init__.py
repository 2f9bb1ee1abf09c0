"""How a device becomes a member of a fleet: its bundle, its claim, and a code that an operator approves.

Rule: what enrolment stored is read at each start; nothing of it is sent but the claim that is made of it.
"""
