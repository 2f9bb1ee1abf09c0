"""The sockets below MQTT and HTTP: addresses that lead nowhere, the PEM files of TLS, parts through a proxy."""
