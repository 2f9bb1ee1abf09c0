"""One upload as its owner sees it: model, events, state machine, duties, and uploads of other owners.

Rule: sans-IO; time arrives in the event.
"""
