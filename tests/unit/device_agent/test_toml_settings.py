"""Settings in folders of TOML files: which one wins, what each error names, and which files are too open."""

from pathlib import Path

import pytest

from device_agent.errors import SettingsError
from device_agent.files.own_files import OwnFiles, identity_of
from device_agent.settings import load, load_settings
from tests.support.self_signed import self_signed

EVERY = """
client_id = "till-7"
mqtt_url = "mqtts://broker:8883"
mqtt_username = "till-7"
mqtt_password = "hunter2"
mqtt_proxy = "http://till-7:hunter2@proxy:3128"
mqtt_certificate = "PEM"
mqtt_key = "PEM"
ca_file = "PEM"
upload_proxy = "http://proxy:3128"
file_path = "/data/a.bin"
allowed_roots = ["/data", "/srv/with, comma"]
upload_hosts = ["https://s3.example.com", "minio:9000"]
state_dir = "/state"
timezone = "Europe/Berlin"
max_parallel_parts = 2
max_bytes_per_second = 1_000_000
spool_max_bytes = 0
spool_max_percent = 10
allow_after = ["delete", "move"]
after_paths = ["/data/out/*"]
after_grace = 60
bytes_per_day = 50_000_000
bytes_per_month = 1_000_000_000
metered_bytes_per_day = 0
metered_bytes_per_month = 5
metered = "yes"
min_disk_free = 1000
min_battery_percent = 20
max_load = 1.5
policy_file = "POLICY"
bundle_file = "BUNDLE"
metrics_file = "/metrics/backhaul.prom"
metrics_port = 9100
log_level = "warning"
topic_root = "fleet/v2"

[labels]
site = "berlin, east"

[types]
sales = ["/data/sales/*.csv", "/old/a=b.csv"]
logs = ["/var/log/**/*.log"]
"""

BUNDLE = '{"format": "backhaul-bundle-v1", "client_id": "till-7", "mqtt_url": "mqtts://broker.example:8883"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "agent.d"
    path.mkdir()
    return path


def write(folder: Path, name: str, text: str, mode: int = 0o640) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return path


def test_every_setting_can_be_given_in_toml(folder: Path) -> None:
    policy = write(folder.parent, "policy.toml", "")
    bundle = write(folder.parent, "bundle.json", BUNDLE, 0o600)
    every = EVERY.replace("PEM", str(self_signed(folder))).replace("POLICY", str(policy)).replace("BUNDLE", str(bundle))
    path = write(folder, "a.toml", every)
    loaded = load({}, None, [folder])
    settings = loaded.settings
    assert set(loaded.places.values()) == {str(path)}
    assert loaded.files == (path,)
    assert {line.partition("=")[0].strip() for line in settings.lines()} == set(loaded.places)
    assert (settings.client_id, settings.mqtt_password, settings.state_dir) == ("till-7", "hunter2", Path("/state"))
    assert settings.allowed_roots == ("/data", "/srv/with, comma")
    assert settings.types["sales"] == ("/data/sales/*.csv", "/old/a=b.csv")
    assert settings.labels == {"site": "berlin, east"}
    assert (settings.max_bytes_per_second, settings.spool_max_bytes, settings.log_level) == (1_000_000, 0, "warning")
    assert "hunter2" not in "".join(loaded.lines())


def test_the_strongest_source_that_names_a_setting_gives_all_of_it(tmp_path: Path, folder: Path) -> None:
    package = write(
        tmp_path / "package", "00-defaults.toml", 'client_id = "x"\nlog_level = "debug"\nmetrics_port = 9000'
    )
    first = write(folder, "10-a.toml", 'client_id = "a"\ntopic_root = "a"\n[labels]\nsite = "a"\nmodel = "pi4"')
    last = write(
        folder, "90-b.toml", 'client_id = "b"\nmax_parallel_parts = 1\nmetrics_port = 9001\n[labels]\nsite = "b"'
    )
    env_file = tmp_path / ".env"
    env_file.write_text("MAX_PARALLEL_PARTS=2\nTIMEZONE=Europe/Berlin\n")
    environ = {"TIMEZONE": "Europe/Paris", "METRICS_PORT": ""}
    loaded = load(environ, env_file, [package.parent, folder])
    settings = loaded.settings
    assert (settings.client_id, settings.labels, settings.log_level) == ("b", {"site": "b"}, "debug")
    assert (settings.topic_root, settings.max_parallel_parts, settings.timezone) == ("a", 2, "Europe/Paris")
    assert settings.metrics_port is None, "an empty value is the default"
    assert loaded.places == {
        "CLIENT_ID": str(last),
        "LABELS": str(last),
        "TOPIC_ROOT": str(first),
        "LOG_LEVEL": str(package),
        "MAX_PARALLEL_PARTS": str(env_file),
        "TIMEZONE": "environment",
    }


def test_only_files_that_end_in_toml_are_read(folder: Path) -> None:
    write(folder, "10-a.toml", 'client_id = "till-7"')
    for name in ("20-b.toml.dpkg-old", ".30-c.toml", "README", "40-d.toml~"):
        write(folder, name, "this is no TOML")
    assert load_settings({}, None, [folder]).client_id == "till-7"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("upload_host = []", "upload_host is not a setting: did you mean upload_hosts?"),
        ("CLIENT_ID = 'x'", "CLIENT_ID is not a setting: did you mean client_id?"),
        ("[server]\nport = 1", "server is not a setting"),
        ("client_id = \n", "is no TOML: Invalid value (at line 1, column 13)"),
        ("a = 1\na = 2\n", "is no TOML: Cannot overwrite a value (at line 2, column 6)"),
        ("client_id = 7", "client_id: 7 must be a text"),
        ("client_id = 'a/b'", "client_id: "),
        ("allowed_roots = '/data'", """allowed_roots: '/data' must be a list of absolute paths, such as ["/data"]"""),
        ("allowed_roots = ['data']", """allowed_roots: ['data'] must be a list of absolute paths, such as ["/data"]"""),
        ("upload_hosts = ['ftp://x']", "upload_hosts: 'ftp://x' is not https://"),
        ("labels = ['a=b']", "labels: ['a=b'] must be a table, such as site = \"berlin\", at most 64"),
        ("[labels]\nsite = 7", "labels: {'site': 7} must be a table"),
        ("[types]\nsales = '/data/*.csv'", "types: {'sales': '/data/*.csv'} must be a table of lists"),
        ("[types]\nsales = ['/data/../x']", "types: sales: "),
        ("max_parallel_parts = '4'", "max_parallel_parts: '4' must be a whole number from 1 to 64"),
        ("max_parallel_parts = true", "max_parallel_parts: True must be a whole number from 1 to 64"),
        ("max_parallel_parts = 4.0", "max_parallel_parts: 4.0 must be"),
        ("metrics_port = 1979-05-27", "metrics_port: "),
        ("state_dir = 5", "state_dir: 5 must be a text"),
        ("mqtt_url = 'http://x'", "mqtt_url: "),
        ("log_level = 'DEBUG '", "log_level: 'DEBUG ' must be one of debug"),
        ("topic_root = 'a/+'", "topic_root: "),
        ("a = " + "[" * 5_000, "is no TOML: "),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_key(folder: Path, text: str, error: str) -> None:
    path = write(folder, "a.toml", text)
    with pytest.raises(SettingsError) as caught:
        load({} if "client_id" in text else {"CLIENT_ID": "till-7"}, None, [folder])
    assert str(caught.value).startswith(f"{path}: {error}")
    assert "\n" not in str(caught.value)


def test_no_error_shows_a_secret(folder: Path) -> None:
    for line in ("mqtt_password = ['hunter2']", "mqtt_password = 'hunter2", "mqtt_password = 'hunter2' x"):
        write(folder, "a.toml", line)
        with pytest.raises(SettingsError) as caught:
            load({"CLIENT_ID": "till-7"}, None, [folder])
        assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_utf8_or_is_a_folder_is_one_line(folder: Path) -> None:
    path = folder / "a.toml"
    path.write_bytes(b"client_id = '\xff'")
    with pytest.raises(SettingsError, match=r"a\.toml: is not UTF-8$"):
        load({}, None, [folder])
    path.unlink()
    path.mkdir()
    with pytest.raises(SettingsError, match=r"a\.toml cannot be read: Is a directory$"):
        load({}, None, [folder])


def test_an_error_of_an_env_file_names_that_file(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("CLIENT_ID=till-7\nMAX_PARALLEL_PARTS=four\n")
    with pytest.raises(SettingsError) as caught:
        load({}, env_file)
    assert str(caught.value) == f"{env_file}: MAX_PARALLEL_PARTS: 'four' must be a whole number from 1 to 64"


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False), (0o600, False)])
def test_a_secret_in_a_file_that_others_can_read_is_warned_about(folder: Path, mode: int, *, warned: bool) -> None:
    path = write(folder, "a.toml", 'client_id = "till-7"\nmqtt_password = "hunter2"', mode)
    write(folder, "b.toml", 'log_level = "info"', 0o644)
    env_file = write(folder.parent, ".env", "MQTT_PASSWORD=hunter2\n", mode)
    texts = [f"{one}: every user of this device can read MQTT_PASSWORD: chmod o-r {one}" for one in (path, env_file)]
    assert list(load({}, env_file, [folder]).warnings) == (texts if warned else [])


def test_the_files_of_the_settings_are_never_uploaded(tmp_path: Path, folder: Path) -> None:
    own = OwnFiles(tmp_path / "state", (folder, tmp_path / "later"))
    path = write(folder, "a.toml", "")
    later = write(tmp_path / "later", "b.toml", "")
    (tmp_path / "hard").hardlink_to(path)
    refused = own.identities()
    assert {identity_of(one.stat()) for one in (path, later, folder, tmp_path / "hard")} <= refused
    assert identity_of(tmp_path.stat()) not in refused


@pytest.mark.parametrize("name", ["till.json", "till.json.request", "till.json.new", "till.json.request.new"])
def test_the_bundle_and_the_request_for_it_are_never_uploaded_wherever_they_are(tmp_path: Path, name: str) -> None:
    """The request has the private keys of the device; a crash leaves it, and a file that was not renamed yet."""
    bundle, file = tmp_path / "till.json", tmp_path / name
    bundle.write_text(BUNDLE)
    file.touch()
    loaded = load({"BUNDLE_FILE": str(bundle)})
    assert identity_of(file.stat()) in OwnFiles(None, loaded.own_files).identities()
