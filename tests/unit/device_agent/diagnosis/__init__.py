"""The doctor of a device."""
