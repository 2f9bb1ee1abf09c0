"""`backhaul-agent.pyz`: the agent in one file, for Linux with Python 3.11 or later.

Rule: writes nothing. Python cannot load a compiled module from an archive; it is loaded from memory that has a file
descriptor (memfd_create), so that the file runs on a read-only root and where every writable file system is noexec.
"""

import os
import sys
import sysconfig
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pkgutil import get_data
from types import ModuleType
from typing import Final

SUFFIX: Final = str(sysconfig.get_config_var("EXT_SUFFIX"))
"""Such as `.cpython-313-aarch64-linux-musl.so`."""

NATIVE: Final = {
    "msgspec._core": f"_core{SUFFIX}",
    # Loaded when the agent signs, verifies or seals, and not before.
    "_cffi_backend": f"_cffi_backend{SUFFIX}",
    "nacl._sodium": f"_sodium-{SUFFIX.split('-', 2)[-1]}",
}
_EX_CONFIG: Final = 78


class FromMemory:
    """Finds the compiled modules, for the Python that runs."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """The module's place in memory; no other module is found here."""
        if name not in NATIVE:
            return None
        try:
            content = get_data("native", NATIVE[name])
        except OSError:
            content = None
        if content is None:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            text = f"backhaul-agent: this file has no compiled module for Python {version} here ({SUFFIX}); use pip"
            print(text, file=sys.stderr)  # noqa: T201 (before logging is set up)
            sys.exit(_EX_CONFIG)
        memory = os.memfd_create(name)
        with os.fdopen(memory, "wb", closefd=False) as file:
            file.write(content)
        # The descriptor stays open: the path of the module stays true.
        place = f"/proc/self/fd/{memory}"
        return spec_from_file_location(name, place, loader=ExtensionFileLoader(name, place))


sys.meta_path.insert(0, FromMemory)

from device_agent.__main__ import main  # noqa: E402

sys.exit(main())
