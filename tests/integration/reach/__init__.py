"""What the settings of the way out do: the PEM files of TLS, and parts that are sent through a proxy."""
