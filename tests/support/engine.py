"""A Docker engine for tests: the one that answers, else Debian's, started for the while and stopped again.

    python -m tests.support.engine COMMAND...

runs a command with an engine. Rule: an engine that runs already is only used. One that is started here has a separate
directory in place of /var/lib/docker, and leaves nothing behind: no process, no file, no bridge, no firewall rule. If
none can be started, the reason is printed, and the command runs all the same: its tests skip themselves.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 60.0
OURS: Final = "BACKHAUL_TEST_ENGINE"
"""Set for the command when the engine is one that we started, so that it may do in it as it likes."""

# Every container inherits it; the default of some kernels makes programs that close all descriptors slow.
_LIMITS: Final = ("--default-ulimit", "nofile=20000:20000")
_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
_BRIDGE: Final = Path("/sys/class/net/docker0")
_MARK: Final = "DOCKER"
"""In the name of every chain of Docker's."""


class NoEngine(Exception):
    """No engine can be started; the text gives the reason."""


def answers() -> bool:
    """Whether an engine answers where the client looks for one."""
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=60, check=False).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


@contextmanager
def engine() -> Iterator[dict[str, str]]:
    """An engine, as environment variables for its user; `NoEngine` with the reason when there is none."""
    if answers():
        yield {}
        return
    if missing := [name for name in ("docker", "dockerd") if shutil.which(name) is None]:
        text = f"no Docker daemon answers, and {' and '.join(missing)} cannot be found: apt-get install docker.io"
        raise NoEngine(text)
    if os.geteuid() != 0:
        text = "no Docker daemon answers, and only root may start one"
        raise NoEngine(text)
    with _restored_network(), _started() as host:
        yield {"DOCKER_HOST": host, OURS: "1"}


@contextmanager
def _started() -> Iterator[str]:
    # A socket's path has at most 107 bytes, so it does not lie below the folder that TMPDIR names.
    directory = Path(tempfile.mkdtemp(prefix="backhaul-engine-", dir="/var/tmp"))
    host = f"unix://{directory}/docker.sock"
    places = (f"--data-root={directory}/data", f"--exec-root={directory}/exec", f"--pidfile={directory}/pid")
    log = directory / "log"
    with log.open("w") as output:
        child = subprocess.Popen(
            ["dockerd", *_LIMITS, *places, f"--host={host}"],
            stdout=output,
            stderr=output,
            # Ctrl-C is for the command; the engine ends after it.
            start_new_session=True,
        )
    try:
        _wait(child, host, log)
        yield host
    finally:
        child.terminate()
        try:
            child.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _wait(child: "subprocess.Popen[bytes]", host: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while subprocess.run(["docker", "--host", host, "info"], capture_output=True, check=False).returncode != 0:
        if child.poll() is not None or time.monotonic() > deadline:
            last = "".join(f"\n  {line}" for line in log.read_text(errors="replace").splitlines()[-3:])
            text = f"no Docker daemon answers, and dockerd does not start here:{last}"
            raise NoEngine(text)
        time.sleep(0.2)


@contextmanager
def _restored_network() -> Iterator[None]:
    """Take back what dockerd does to the machine's network and leaves there: forwarding, firewall rules, a bridge.

    Only what it did: rules of others are kept, and where another engine works or has worked, nothing is touched.
    """
    forwarding, rules = _FORWARDING.read_text(), {tool: _output(f"{tool}-save") for tool in ("iptables", "ip6tables")}
    untouched = not (_BRIDGE.exists() or any(_MARK in (saved or "") for saved in rules.values()))
    try:
        yield
    finally:
        if untouched and _output("pgrep", "-x", "dockerd") is None:
            for tool, before in rules.items():
                _without_docker(tool, before)
            _output("ip", "link", "delete", "docker0")
            with suppress(OSError):
                _FORWARDING.write_text(forwarding)


def _without_docker(tool: str, before: str | None) -> None:
    """The rules as they are, less Docker's, with the policies of before."""
    after = _output(f"{tool}-save")
    if before is None or after is None:
        return
    policies = {line.split()[0]: line for line in before.splitlines() if line.startswith(":FORWARD ")}
    kept = [line for line in after.splitlines() if not (_MARK in line or "docker0" in line)]
    kept = [policies.get(line.split()[0], line) if line.startswith(":") else line for line in kept]
    subprocess.run([f"{tool}-restore"], input="\n".join((*kept, "")), capture_output=True, text=True, check=False)


def _output(*command: str) -> str | None:
    """What a command prints; None where there is no such command, or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def main(command: list[str]) -> int:
    """Run the command with an engine, or without one, with the reason on standard error."""
    try:
        with engine() as environment:
            return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode
    except NoEngine as error:
        sys.stderr.write(f"{error}\n")
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
