"""The agent's settings: every name, every default, and one clear line for every mistake."""

import os
from pathlib import Path

import pytest

from device_agent.errors import SettingsError
from device_agent.settings import NAMES, load_settings
from device_agent.tls import TlsFiles
from tests.support.self_signed import self_signed

BASE = {"CLIENT_ID": "till-1", "STATE_DIR": "/var/lib/x"}


def test_defaults() -> None:
    settings = load_settings(BASE)
    assert (settings.client_id, settings.mqtt_url, settings.mqtt_username) == ("till-1", "mqtt://localhost:1883", None)
    assert (settings.allowed_roots, settings.upload_hosts, settings.file_path) == ((), (), None)
    assert (settings.max_parallel_parts, settings.max_bytes_per_second, settings.log_level) == (4, None, "info")
    assert settings.topic_root == "fleet/v1"


def test_a_bundle_that_is_there_and_cannot_be_read_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the device would start unsigned. A folder stands for a file that its user may not read."""
    place = tmp_path / "bundle.json"
    monkeypatch.setattr("device_agent.enrolment.bundle.BUNDLE_FILE", place)
    assert load_settings(BASE).client_id == "till-1"
    place.mkdir()
    with pytest.raises(SettingsError, match=f"{place} cannot be read"):
        load_settings(BASE)


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    pem, policy = str(self_signed(tmp_path)), tmp_path / "policy.toml"
    policy.touch(0o600)
    bundle = tmp_path / "bundle.json"
    bundle.write_text('{"client_id": "other", "mqtt_url": "mqtt://other", "labels": {"site": "paris"}}')
    given = {
        "CLIENT_ID": "till-1",
        "MQTT_URL": "mqtts://broker:8883",
        "MQTT_USERNAME": "till-1",
        "MQTT_PASSWORD": "secret",
        "MQTT_PROXY": "http://till-1:hunter2@proxy:3128",
        "MQTT_CERTIFICATE": pem,
        "MQTT_KEY": pem,
        "BUNDLE_FILE": str(bundle),
        "CA_FILE": pem,
        "FILE_PATH": "/data/a.bin",
        "ALLOWED_ROOTS": "/data, /var/log",
        "TYPES": "sales=/data/sales/*.csv, logs=/var/log/**/*.log, sales = /old/a=b.csv",
        "POLICY_FILE": str(policy),
        "TIMEZONE": "Europe/Berlin",
        "UPLOAD_HOSTS": "s3.example.com:443,minio:9000",
        "UPLOAD_PROXY": "http://proxy",
        "STATE_DIR": "/state",
        "LABELS": "site=berlin, model=pi4",
        "MAX_PARALLEL_PARTS": "2",
        "MAX_BYTES_PER_SECOND": "1000000",
        "BYTES_PER_DAY": "50000000",
        "BYTES_PER_MONTH": "1000000000",
        "METERED_BYTES_PER_DAY": "0",
        "METERED_BYTES_PER_MONTH": "5",
        "METERED": "YES",
        "MIN_DISK_FREE": "1000",
        "MIN_BATTERY_PERCENT": "20",
        "MAX_LOAD": "1.5",
        "SPOOL_MAX_BYTES": "2000000",
        "SPOOL_MAX_PERCENT": "10",
        "ALLOW_AFTER": "delete, move",
        "AFTER_PATHS": "/data/out/*",
        "AFTER_GRACE": "60",
        "METRICS_FILE": "/metrics/backhaul.prom",
        "METRICS_PORT": "9100",
        "LOG_LEVEL": "DEBUG",
        "TOPIC_ROOT": "fleet/v2",
    }
    assert set(given) == set(NAMES)
    settings = load_settings(given)
    assert settings.allowed_roots == ("/data", "/var/log")
    assert settings.upload_hosts == ("s3.example.com:443", "minio:9000")
    assert settings.labels == {"site": "berlin", "model": "pi4"}
    assert settings.types == {"sales": ("/data/sales/*.csv", "/old/a=b.csv"), "logs": ("/var/log/**/*.log",)}
    assert settings.timezone == "Europe/Berlin"
    assert settings.way.tls == TlsFiles(pem, pem, pem)
    assert (str(settings.way.proxy), str(settings.upload_way.proxy)) == ("proxy:3128", "proxy:3128")
    assert "MQTT_PROXY=http://till-1:(set)@proxy:3128" in settings.lines()
    assert "hunter2" not in repr(settings)
    assert "TYPES=sales=/data/sales/*.csv,sales=/old/a=b.csv,logs=/var/log/**/*.log" in settings.lines()
    assert (settings.max_parallel_parts, settings.max_bytes_per_second) == (2, 1_000_000)
    assert (settings.bytes_per_day, settings.bytes_per_month) == (50_000_000, 1_000_000_000)
    assert (settings.metered, settings.metered_bytes_per_day, settings.metered_bytes_per_month) == ("yes", 0, 5)
    assert (settings.min_disk_free, settings.min_battery_percent, settings.max_load) == (1000, 20, 1.5)
    assert (settings.spool_max_bytes, settings.spool_max_percent) == (2_000_000, 10)
    assert (settings.allow_after, settings.after_paths) == (("delete", "move"), ("/data/out/*",))
    assert settings.after_grace == 60
    assert settings.policy_file == str(policy)
    assert (settings.metrics_file, settings.metrics_port) == ("/metrics/backhaul.prom", 9100)
    assert (settings.log_level, settings.state_dir, settings.topic_root) == ("debug", Path("/state"), "fleet/v2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLIENT_ID", ""),
        ("CLIENT_ID", "a/b"),
        ("CLIENT_ID", "cli-1"),
        ("MQTT_URL", "http://broker"),
        ("MQTT_URL", "mqtt://user:pass@broker"),
        ("MQTT_URL", "mqtt://a..b"),
        ("MQTT_USERNAME", "another"),
        ("FILE_PATH", "relative.bin"),
        ("ALLOWED_ROOTS", "/data,relative"),
        ("UPLOAD_HOSTS", "ftp://s3.example.com"),
        ("TYPES", "sales"),
        ("TYPES", "sales=data/*.csv"),
        ("TYPES", "sales=/data/../*.csv"),
        ("TYPES", "the sales=/data/*.csv"),
        ("TIMEZONE", "Berlin time"),
        ("TIMEZONE", "../etc/passwd"),
        ("LABELS", "berlin"),
        ("MAX_PARALLEL_PARTS", "0"),
        ("MAX_PARALLEL_PARTS", "65"),
        ("MAX_PARALLEL_PARTS", "four"),
        ("MAX_BYTES_PER_SECOND", "0"),
        ("MAX_BYTES_PER_SECOND", "1.5"),
        ("MAX_BYTES_PER_SECOND", "1e6"),
        ("MAX_BYTES_PER_SECOND", "null"),
        ("MAX_BYTES_PER_SECOND", "9" * 5_000),
        ("MAX_PARALLEL_PARTS", "4.0"),
        ("SPOOL_MAX_BYTES", "-1"),
        ("BYTES_PER_DAY", "50MB"),
        ("METERED", "maybe"),
        ("MIN_BATTERY_PERCENT", "101"),
        ("MAX_LOAD", "0"),
        ("MAX_LOAD", "nan"),
        ("SPOOL_MAX_PERCENT", "101"),
        ("METRICS_FILE", "backhaul.prom"),
        ("METRICS_PORT", "0"),
        ("SPOOL_MAX_PERCENT", "25%"),
        ("LOG_LEVEL", "loud"),
        ("TOPIC_ROOT", "fleet/+"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        load_settings({**BASE, name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("FILE_PATH", "a.bin", "FILE_PATH: 'a.bin' must be an absolute path"),
        ("ALLOWED_ROOTS", "/a,b", "ALLOWED_ROOTS: '/a,b' must be absolute paths, with commas between them"),
        (
            "LABELS",
            "a=b,c",
            "LABELS: 'a=b,c' must look like site=berlin,model=pi4, at most 64, of at most 256 characters",
        ),
        ("MAX_PARALLEL_PARTS", "four", "MAX_PARALLEL_PARTS: 'four' must be a whole number from 1 to 64"),
    ],
)
def test_the_line_names_one_setting_and_what_to_write_instead(name: str, value: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({**BASE, name: value})
    assert str(caught.value) == text


def test_a_number_may_begin_with_zeros() -> None:
    settings = load_settings({**BASE, "MAX_PARALLEL_PARTS": "04", "MAX_BYTES_PER_SECOND": "010"})
    assert (settings.max_parallel_parts, settings.max_bytes_per_second) == (4, 10)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# ours\nexport LOG_LEVEL='error'\nCLIENT_ID=file\nLABELS=\n\nS3_BUCKET_NAME=somebody-elses\n")
    settings = load_settings(BASE, file)
    assert (settings.client_id, settings.log_level, settings.labels) == ("till-1", "error", {})


@pytest.mark.parametrize(
    ("line", "meant"),
    [("UPLOAD_HOST=a:1", "UPLOAD_HOSTS"), ("MQTT_PASWORD=x", "MQTT_PASSWORD"), ("client_id=x", "CLIENT_ID")],
)
def test_a_misspelt_name_in_the_file_stops_the_program(tmp_path: Path, line: str, meant: str) -> None:
    file = tmp_path / ".env"
    file.write_text(line)
    with pytest.raises(SettingsError, match=f"did you mean {meant}"):
        load_settings(BASE, file)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ALOWED_ROOTS", "ALLOWED_ROOTS"),
        ("MQTT_USER", "MQTT_USERNAME"),
        ("FILEPATH", "FILE_PATH"),
        ("LABLES", "LABELS"),
    ],
)
def test_a_misspelt_name_in_the_environment_stops_the_program(name: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is not a setting: did you mean {meant}"):
        load_settings({**BASE, name: "x"})


def test_an_unknown_name_in_the_file_stops_the_program(tmp_path: Path) -> None:
    """The file belongs to Backhaul; names of the control plane and of compose are allowed in it."""
    file = tmp_path / ".env"
    file.write_text("S3_BUCKET_NAME=x\nCOMPOSE_PROJECT_NAME=x\nANSWER=42\n")
    with pytest.raises(SettingsError, match="ANSWER is not a setting"):
        load_settings(BASE, file)


def test_a_line_without_a_name_is_reported_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("CLIENT_ID=x\nhunter2\n")
    with pytest.raises(SettingsError, match="line 2") as caught:
        load_settings(BASE, file)
    assert "hunter2" not in str(caught.value)


def test_no_secret_is_shown() -> None:
    settings = load_settings({**BASE, "MQTT_PASSWORD": "hunter2"})
    assert "hunter2" not in repr(settings) + "\n".join(settings.lines())
    assert "MQTT_PASSWORD=(set)" in settings.lines()
    assert settings.mqtt_username == "till-1"


def test_the_default_state_folder_follows_the_system() -> None:
    given = {"CLIENT_ID": "till-1"}
    assert load_settings({**given, "STATE_DIRECTORY": "/var/lib/agent:/x"}).state_dir == Path("/var/lib/agent")
    assert load_settings(given).state_dir.name == "till-1"


CONTROL = "\x01" * 250


# The kind: a setting that is checked for its shape, and not for whether a message can hold it.


def test_a_default_file_that_is_not_utf8_can_be_announced(tmp_path: Path) -> None:
    name = os.fsdecode(b"/data/\xff.bin")
    env_file = tmp_path / ".env"
    env_file.write_bytes(b"FILE_PATH=/data/\xff.bin\nALLOWED_ROOTS=/\xfe\n")
    for settings in (load_settings({**BASE, "FILE_PATH": name}), load_settings(BASE, env_file)):
        assert (settings.file_path, settings.default_file) == (name, r"/data/\xff.bin")
        assert r"FILE_PATH=/data/\xff.bin" in settings.lines()
        assert "".join(settings.lines()).encode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LABELS", "site=\udcff"),
        ("MQTT_PASSWORD", "\udcff"),
        ("MQTT_URL", "mqtt://\udcff"),
        ("TOPIC_ROOT", "a\udcff"),
        ("UPLOAD_HOSTS", "\udcff:1"),
        ("LABELS", f"site={'x' * 257}"),
        ("LABELS", ",".join(f"{number}{CONTROL}={CONTROL}" for number in range(64))),
        ("FILE_PATH", "/" + "x" * 4096),
        ("FILE_PATH", "/" + "\udcff" * 1500),
    ],
)
def test_a_setting_that_no_message_can_hold_stops_the_start(name: str, value: str) -> None:
    """Such an agent ran, never connected, and logged one error for ever."""
    with pytest.raises(SettingsError, match=f"^{name}: ") as caught:
        load_settings({**BASE, name: value})
    assert str(caught.value).encode()
