"""One upload on its owner's side: model, events, state machine, duties; and observed uploads of other owners.

Rule: sans-IO; time arrives in the event.
"""
