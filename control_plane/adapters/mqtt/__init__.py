"""The MQTT broker, through aiomqtt.

Rule: the only package that imports aiomqtt.
"""
