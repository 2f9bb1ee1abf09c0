"""The settings of the agent: the environment, the file `.env` beside it, and folders of TOML files.

Rule: a wrong value stops the program with one line that names it and its file, and so does a misspelt name. A setting
comes whole from the strongest source that names it; an empty value is the default.
"""

from device_agent.settings.loading import LoadedSettings, load, load_settings
from device_agent.settings.model import MAX_WORKERS, NAMES, LogLevel, Settings
from device_agent.settings.names import CONTROL_PLANE_NAMES, SPELLING
from device_agent.settings.sources import ADMINISTRATOR, CONFIG_DIRS, is_there

__all__ = [
    "ADMINISTRATOR",
    "CONFIG_DIRS",
    "CONTROL_PLANE_NAMES",
    "MAX_WORKERS",
    "NAMES",
    "SPELLING",
    "LoadedSettings",
    "LogLevel",
    "Settings",
    "is_there",
    "load",
    "load_settings",
]
