"""Commands that speak MQTT directly, without a control plane.

Rule: the upload engine is the control plane's; there is no second one.
"""
