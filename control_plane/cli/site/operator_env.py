"""The settings of a site's operator as a file for a shell.

Rule: the file holds secrets, so it is its owner's alone.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from control_plane.cli.rest.token import operator_token
from control_plane.cli.site.stack import Site, plane_settings


def operator_file(site: Site) -> Path:
    """The file of the operator's settings."""
    return site.directory / "operator.env"


def write_operator_file(site: Site, account: Mapping[str, str] | None = None) -> None:
    """Write what `backhaul`, `backhaul mqtt` and `backhaul doctor` need; `account` where the broker requires one.

    Where the control plane needs a token, it has one for a day.
    """
    settings = {
        "BACKHAUL_URL": site.server,
        **plane_settings(site.directory, site.broker, site.store, urlsplit(site.server).port or 0),
        **(account or {}),
        **({} if site.secret is None else {"BACKHAUL_TOKEN": operator_token(site.secret), "JWT_SECRET": site.secret}),
    }
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    with os.fdopen(os.open(operator_file(site), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
