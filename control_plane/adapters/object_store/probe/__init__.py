"""Finds out what the object store does, by doing what devices do (docs/decisions/0016).

Rule: no capability follows from a product's name, and the probe needs no permission that uploads do not need.
"""

from control_plane.adapters.object_store.probe.memory import ProbeMemory
from control_plane.adapters.object_store.probe.run import Probe

__all__ = ["Probe", "ProbeMemory"]
