"""The settings of a site's operator as a file for a shell.

Rule: the file holds secrets, so it is its owner's alone.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from control_plane.cli.site.stack import BUCKET, Site


def operator_file(site: Site) -> Path:
    """The file of the operator's settings."""
    return site.directory / "operator.env"


def write_operator_file(site: Site, account: Mapping[str, str] | None = None) -> None:
    """Write what `backhaul` and `backhaul mqtt` need to reach the site; `account` where the broker requires one."""
    settings = {
        "BACKHAUL_URL": site.server,
        "MQTT_URL": site.broker.address.url,
        "AWS_ENDPOINT": site.store.endpoint,
        "AWS_ACCESS_KEY_ID": site.store.credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": site.store.credentials.secret_key,
        "S3_BUCKET_NAME": BUCKET,
        **(account or {}),
    }
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    with os.fdopen(os.open(operator_file(site), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
