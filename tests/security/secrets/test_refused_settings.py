"""A setting that is refused, with a secret in its value: the one line about it does not repeat the secret.

Rule: every setting whose value may contain a user and a password, or is a secret, on both sides.
"""

from pathlib import Path
from typing import Final

import pytest

from control_plane.settings import Settings, SettingsError
from device_agent.__main__ import main

WORD: Final = "vK9canary27xQ"
HOSTS: Final = f"http://ann:{WORD}@store.example"
DEVICE: Final = {"CLIENT_ID": "restaurant-1", "MQTT_URL": "mqtt://127.0.0.1", "ALLOWED_ROOTS": "/data"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", f"mysql://ann:{WORD}@127.0.0.1/none"),
        ("MQTT_URL", f"http://ann:{WORD}@127.0.0.1"),
        ("MQTT_URL", f"mqtt://ann:{WORD}@127.0.0.1:port"),
        ("MQTT_PASSWORD", f"{WORD}\n{WORD}"),
        ("AWS_ENDPOINT", f"ftp://ann:{WORD}@127.0.0.1"),
        ("AWS_ENDPOINT", HOSTS),
        ("S3_PUBLIC_ENDPOINT", HOSTS),
        ("AWS_SECRET_ACCESS_KEY", WORD),
        ("AWS_SESSION_TOKEN", WORD),
        ("JWT_SECRET", WORD),
        ("JWT_SECRET", f"{WORD * 3}\n{WORD * 3}"),
        ("WEBHOOK_NETWORKS", HOSTS),
        ("ALLOWED_HOSTS", HOSTS),
        ("OIDC_ISSUER", f"https://ann:{WORD}@login.example"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://ann:{WORD}@127.0.0.1:port"),
    ],
)
def test_the_control_plane_repeats_no_secret_of_a_refused_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.load({name: value})
    assert WORD not in str(refused.value)
    assert name in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MQTT_URL", f"mqtt://ann:{WORD}@127.0.0.1:port"),
        ("MQTT_URL", f"ftp://ann:{WORD}@127.0.0.1"),
        ("MQTT_PROXY", f"ftp://ann:{WORD}@127.0.0.1"),
        ("MQTT_PROXY", f"http://ann:{WORD}@127.0.0.1:port"),
        ("UPLOAD_HOSTS", HOSTS),
        ("UPLOAD_PROXY", f"http://ann:{WORD}@127.0.0.1:port"),
    ],
)
def test_the_agent_repeats_no_secret_of_a_refused_setting(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for one, given in (DEVICE | {name: value}).items():
        monkeypatch.setenv(one, given)
    assert main(["--check", "--config-dir", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert name in shown.err
    assert WORD not in shown.err + shown.out


@pytest.mark.parametrize("length", [1, 16, 31])
def test_a_short_secret_is_refused(length: int) -> None:
    with pytest.raises(SettingsError, match="JWT_SECRET"):
        Settings.load({"JWT_SECRET": "x" * length})
    assert Settings.load({"JWT_SECRET": "x" * 32}).jwt_secret is not None


@pytest.mark.parametrize("given", [{}, {"JWT_SECRET": "p" * 32}], ids=["alone", "beside itself"])
def test_a_previous_secret_needs_another_one_in_its_place(given: dict[str, str]) -> None:
    """The same one in both places would look like a change of the secret, and be none."""
    with pytest.raises(SettingsError, match="JWT_SECRET_PREVIOUS"):
        Settings.load({**given, "JWT_SECRET_PREVIOUS": "p" * 32})
    assert Settings.load({"JWT_SECRET": "x" * 32, "JWT_SECRET_PREVIOUS": "p" * 32}).jwt_secret_previous is not None
