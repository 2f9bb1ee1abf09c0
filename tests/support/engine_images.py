"""The images of others that ours stand on: what the engine has, what it can pull, else stand-ins made of Debian.

Rule: a name that the engine knows is never overwritten. A stand-in is made where nothing can be pulled, bears the name
that Dockerfiles and compose files use, and is listed in docs/limits.md: what ran on one did not run on the real one.

A stand-in knows how this machine reaches its packages (the authorities it trusts, pip's settings, apt's mirror), and
nothing of it gets into a Dockerfile of the project.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support.engine import OURS

SUITE: Final = "bookworm"
PYTHON: Final = "python:3.11.14-slim-bookworm"
MOSQUITTO: Final = "eclipse-mosquitto:2.0.22"
CADDY: Final = "caddy:2.10.2"
POSTGRES: Final = "postgres:15.14-bookworm"

_PYTHON_PACKAGES: Final = "python3,python3-venv,python3-pip,ca-certificates"
_AUTHORITIES: Final = "etc/ssl/certs/ca-certificates.crt"
_INSTALL: Final = (
    "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
    # An image that is thrown away needs no fsync for each file.
    " -o Dpkg::Options::=--force-unsafe-io {} >/dev/null && rm -rf /var/lib/apt/lists/*"
)
# What the real images are used for here: their paths, their users, their capabilities, their way to receive a password.
_DOCKERFILES: Final[Mapping[str, str]] = {
    MOSQUITTO: f"""
        RUN groupadd --gid 1883 broker && useradd --uid 1883 --gid 1883 --no-create-home broker
        RUN {_INSTALL.format("mosquitto mosquitto-clients")}
        EXPOSE 1883
        CMD ["/usr/sbin/mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]
    """,
    CADDY: f"""
        RUN {_INSTALL.format("caddy libcap2-bin")}
        RUN setcap cap_net_bind_service=+ep /usr/bin/caddy
        ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data
        CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
    """,
    POSTGRES: f"""
        RUN groupadd --gid 999 postgres && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql postgres
        RUN {_INSTALL.format("postgresql-15")}
        RUN install -d -o 999 -g 999 -m 0700 /var/lib/postgresql/data
        RUN install -d -o 999 -g 999 -m 3777 /var/run/postgresql
        ENV PGDATA=/var/lib/postgresql/data PATH=/usr/lib/postgresql/15/bin:$PATH
        RUN printf '%s\\n' '#!/bin/sh' 'set -eu' \\
            'if [ ! -s "$PGDATA/PG_VERSION" ]; then' \\
            '  set -- --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8' \\
            '  initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" "$@" >/dev/null' \\
            '  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"' \\
            '  echo "CREATE DATABASE \\"$POSTGRES_DB\\"" | postgres --single -D "$PGDATA" postgres >/dev/null' \\
            'fi' \\
            'exec postgres -D "$PGDATA" -c listen_addresses="*"' >/usr/local/bin/start && chmod +x /usr/local/bin/start
        ENTRYPOINT ["start"]
    """,
}


class Images:
    """Provides images by name; `stand_ins` lists those that are not the real ones."""

    def __init__(self) -> None:
        self.stand_ins: list[str] = []
        # In an engine that we started nothing can have been pulled, and we know that nothing needs to be.
        self._pulls = OURS not in os.environ

    def provide(self, *names: str) -> None:
        """See to it that the engine has these."""
        for name in names:
            if not (has(name) or self._pulled(name)):
                _make(name)
                self.stand_ins.append(name)

    def remove_stand_ins(self) -> None:
        """Leave an engine that is not ours as it was."""
        if OURS not in os.environ:
            for name in self.stand_ins:
                subprocess.run(["docker", "rmi", "--force", name], capture_output=True, check=False)

    def _pulled(self, name: str) -> bool:
        if self._pulls:
            self._pulls = _succeeds(["docker", "pull", "--quiet", name], timeout=300)
        return self._pulls


def has(name: str) -> bool:
    """Whether the engine has the image."""
    return _succeeds(["docker", "image", "inspect", name], timeout=30)


def size(name: str) -> int:
    """Bytes of all layers of an image, unpacked."""
    found = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Size}}", name], capture_output=True, text=True, check=True
    )
    return int(found.stdout)


def _succeeds(command: list[str], timeout: float) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=timeout, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _make(name: str) -> None:
    if name == PYTHON:
        _make_python()
        return
    if not has(PYTHON):
        _make_python()
    text = "\n".join((f"FROM {PYTHON}", *(line.strip() for line in _DOCKERFILES[name].splitlines()), ""))
    _run(["docker", "build", "--quiet", "--tag", name, "-"], text)


def _make_python() -> None:
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("no image can be pulled, and a stand-in needs debootstrap and root")
    root = Path(tempfile.mkdtemp(prefix="backhaul-root-", dir="/var/tmp"))
    try:
        _run(["debootstrap", "--variant=minbase", f"--include={_PYTHON_PACKAGES}", SUITE, str(root), *mirror()])
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        for folder in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
            shutil.rmtree(root / folder, ignore_errors=True)
        (root / "var/cache/apt/archives/partial").mkdir(parents=True)
        (root / "var/lib/apt/lists/partial").mkdir(parents=True)
        _let_it_reach_packages(root)
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as archive:
            taken = ["docker", "import", "-", PYTHON]
            subprocess.run(taken, stdin=archive.stdout, stdout=subprocess.DEVNULL, check=True)
        assert archive.returncode == 0, "tar failed"
    finally:
        shutil.rmtree(root, ignore_errors=True)


def mirror() -> list[str]:
    """Where this machine's apt gets Debian from; nothing where none is configured, for debootstrap has a default."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Identifier: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    pairs = [line.split() for line in listed.stdout.splitlines()]
    found: list[str] = [pair[1] for pair in pairs if len(pair) > 1 and pair[0] == SUITE and "/debian" in pair[1]]
    return [uri.rstrip("/") for uri in found[:1]]


def _let_it_reach_packages(root: Path) -> None:
    """Give it the authorities and the pip settings of this machine."""
    settings = _pip_settings()
    bundles = (os.environ.get("SSL_CERT_FILE"), os.environ.get("REQUESTS_CA_BUNDLE"), settings.get("cert"))
    for bundle in bundles:
        if bundle and Path(bundle).is_file():
            shutil.copyfile(bundle, root / _AUTHORITIES)
            break
    lines = [f"{name} = {value}" for name, value in settings.items() if name not in {"cert", "constraint"}]
    text = "\n".join(("[global]", f"cert = /{_AUTHORITIES}", *lines, ""))
    (root / "etc/pip.conf").write_text(text)


def _pip_settings() -> dict[str, str]:
    """The output of `pip config list`, without what lies on this machine's disk."""
    listed = subprocess.run(["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    settings: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        arguments = value.strip("'\"").replace("\\n", " ").split()
        kept = " ".join(word for word in arguments if not word.startswith(("file:", "/")))
        if kept or name.endswith(".cert"):
            settings[name.rpartition(".")[2]] = kept or value.strip("'\"")
    return settings


def _run(command: list[str], stdin: str | None = None) -> None:
    ended = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        text = "\n".join((ended.stdout + ended.stderr).splitlines()[-20:])
        pytest.fail(f"{' '.join(command)} failed:\n{text}")
