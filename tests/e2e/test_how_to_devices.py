"""The documents about devices, followed word for word: docs/how-to/raspberry-pi.md and flash-an-image.md.

Rule: what a document types is typed as it stands; only `/data`, `/etc/backhaul` and `/boot` are folders of the test.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from device_agent.command_line.parser import parser
from device_agent.settings import NAMES, load_settings
from tests.support.sites import running_fleet

DOCS: Final = Path(__file__).parents[2] / "docs"
PI: Final = (DOCS / "how-to/raspberry-pi.md").read_text()
IMAGE: Final = (DOCS / "how-to/flash-an-image.md").read_text()
REFERENCE: Final = (DOCS / "reference/agent.md").read_text()
PATH: Final = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def typed(script: str, folder: Path, **env: str) -> str:
    given = {"PATH": PATH, "HOME": str(folder), **env}
    ended = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=given, capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_page_of_the_raspberry_pi_ends_with_a_proven_upload(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "report.bin").write_bytes(os.urandom(100_000))
    on_the_device, on_the_desk = (block.replace("/data/", f"{data}/") for block in blocks(PI, "bash"))
    with running_fleet(tmp_path / "fleet") as fleet:
        fleet.attach("restaurant-1", ALLOWED_ROOTS=str(data))
        settings = {
            **fleet.site.agent_settings(),
            "CLIENT_ID": "restaurant-1",
            "STATE_DIR": str(fleet.directory / "restaurant-1" / "state"),
            "ALLOWED_ROOTS": str(data),
        }
        seen = typed(on_the_device, tmp_path, **settings)
        assert "restaurant-1 is online." in seen
        assert "Nothing is wrong." in seen
        assert "report.bin may be uploaded." in seen
        assert "completed" in typed(on_the_desk, tmp_path, BACKHAUL_URL=fleet.site.server)


def test_the_page_of_the_raspberry_pi_names_every_question_of_setup() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \|", PI, re.MULTILINE)
    assert rows == ["CLIENT_ID", "MQTT_URL", "MQTT_PASSWORD", "ALLOWED_ROOTS", "UPLOAD_HOSTS"]
    assert set(rows) < set(NAMES)


def test_the_file_of_settings_is_a_file_of_answers(tmp_path: Path) -> None:
    (settings,) = blocks(IMAGE, "toml")
    (tmp_path / "answers.toml").write_text(
        settings.replace("broker.example.com", "127.0.0.1:1").replace("mqtts", "mqtt")
    )
    (commands,) = blocks(IMAGE, "bash")
    printed = typed(commands.replace("https://s3.eu-central-1.amazonaws.com", "http://127.0.0.1:1"), tmp_path)
    assert "CLIENT_ID=restaurant-1" in printed
    assert "LABELS=site=berlin" in printed
    assert "secret" not in printed


def test_the_user_data_for_cloud_init_is_valid_and_writes_settings_that_the_agent_reads(tmp_path: Path) -> None:
    """By cloud-init's own schema, where cloud-init is installed."""
    (text,) = blocks(IMAGE, "yaml")
    assert text.startswith("#cloud-config\n")
    user_data: dict[str, Any] = yaml.safe_load(text)
    (written,) = user_data["write_files"]
    assert written["path"] == "/etc/backhaul/agent.d/50-setup.toml"
    (tmp_path / "agent.d").mkdir()
    (tmp_path / "agent.d/50-setup.toml").write_text(written["content"])
    assert load_settings({"HOME": "/none"}, None, [tmp_path / "agent.d"]).client_id == "restaurant-1"
    assert all(isinstance(word, str) for command in user_data["runcmd"] for word in command)
    if shutil.which("cloud-init") is not None:
        file = tmp_path / "user-data"
        file.write_text(text)
        typed(f"cloud-init schema --config-file {file}", tmp_path)


def test_the_first_boot_installs_the_package_and_the_settings_and_leaves_no_password(tmp_path: Path) -> None:
    """Beside doubles for what changes the system: apt-get, dpkg, systemctl, and the group of the package."""
    (script,) = blocks(IMAGE, "sh")
    boot, etc, tools = (tmp_path / name for name in ("boot", "etc", "tools"))
    for folder in (boot / "firmware", etc, tools):
        folder.mkdir(parents=True)
    (boot / "firmware/50-setup.toml").write_text(blocks(IMAGE, "toml")[0])
    (boot / "firmware/backhaul-agent_1_arm64.deb").touch()
    for name in ("apt-get", "dpkg", "systemctl"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/called\n')
        (tools / name).chmod(0o755)
    own = (
        script.replace("/boot", str(boot)).replace("/etc/", f"{etc}/").replace("-g backhaul-agent", f"-g {os.getgid()}")
    )
    typed(own, tmp_path, PATH=f"{tools}:{PATH}")
    assert (tmp_path / "called").read_text() == (
        f"apt-get install --yes --no-download {boot}/firmware/backhaul-agent_1_arm64.deb\n"
        "systemctl enable backhaul-agent\n"
    )
    (settings,) = (etc / "backhaul/agent.d").iterdir()
    assert tomllib.loads(settings.read_text())["client_id"] == "restaurant-1"
    assert settings.stat().st_mode & 0o777 == 0o640
    assert not (boot / "firmware/50-setup.toml").exists()


def test_the_reference_has_every_subcommand_and_every_option() -> None:
    made = parser()
    (subcommands,) = (action.choices for action in made._actions if action.dest == "command")
    assert isinstance(subcommands, dict)
    for name, one in {"": made, **subcommands}.items():
        assert not name or f"`backhaul-agent {name}" in REFERENCE
        options = [text for action in one._actions for text in action.option_strings if text.startswith("--")]
        assert [text for text in options if not re.search(rf"^\| `{text}[ `]", REFERENCE, re.MULTILINE)] == []
