"""Sealed files: encrypted on the device, so that neither the object store nor the control plane can read them.

Rule: PyNaCl is imported when the first file is sealed, and never by an agent that seals none.
"""
