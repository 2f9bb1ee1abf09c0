"""Writes the settings of `setup` as TOML.

Rule: the file is replaced at once, and readable by root and the agent's group only, because it holds the password.
"""

import grp
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from device_agent.state.atomic_file import rename_durably, write_temporary

GROUP: Final = "backhaul-agent"
"""The group of the packaged agent."""

_GROUP_READS: Final = 0o640
_HEAD: Final = "# Written by `backhaul-agent setup`, which keeps values that are set here, and no comments.\n"
_DELETE: Final = "\x7f"


def toml_of(values: Mapping[str, Any]) -> str:
    """The file's text: texts, numbers, lists of texts, and one level of tables. `ValueError` for what is no UTF-8.

    >>> print(toml_of({"client_id": "till-7", "allowed_roots": ["/data"], "labels": {"site": "berlin"}}), end="")
    client_id = "till-7"
    allowed_roots = ["/data"]
    <BLANKLINE>
    [labels]
    "site" = "berlin"
    """
    lines = [f"{name} = {_value(value)}" for name, value in values.items() if not isinstance(value, Mapping)]
    for name, table in values.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{name}]", *(f"{_text(key)} = {_value(value)}" for key, value in table.items())]
    text = "".join(f"{line}\n" for line in lines)
    text.encode()
    return text


def write_settings(path: Path, values: Mapping[str, Any]) -> None:
    """Replace `path`; `OSError` leaves the file that was there."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    content = (_HEAD + toml_of(values)).encode()
    temporary = path.with_name(f"{path.name}.new")
    try:
        # One that an interrupted run left may be readable by others.
        temporary.unlink(missing_ok=True)
        write_temporary(path, [content])
        with suppress(KeyError, PermissionError):
            # Without that group, or as another user than root, only the owner reads it.
            os.chown(temporary, -1, grp.getgrnam(GROUP).gr_gid)
            temporary.chmod(_GROUP_READS)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    rename_durably(temporary, path)


def _value(value: Any) -> str:  # noqa: ANN401 (as TOML has it)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    return f"[{', '.join(map(_text, value))}]"


def _text(text: str) -> str:
    """A basic string: JSON has the same escapes, and leaves out one character that TOML has not plain."""
    return json.dumps(text, ensure_ascii=False).replace(_DELETE, "\\u007f")
