"""The operator's command line: over REST, straight over MQTT, and whole systems on one machine.

Rule: nothing is decided here. A command parses what was typed, calls the control plane or a service, and prints.
"""
