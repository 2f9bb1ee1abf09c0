"""The policy of the device."""
