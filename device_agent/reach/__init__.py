"""How a connection leaves the device: addresses of both families, an HTTP proxy, TLS, a WebSocket.

Rule: sockets only; neither MQTT nor the object store's HTTP. Nothing here reads the environment: a proxy is used only
where a setting names one.
"""
