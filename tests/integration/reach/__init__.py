"""The sockets below MQTT and HTTP: TLS files, proxies that misbehave, addresses that lead nowhere."""
