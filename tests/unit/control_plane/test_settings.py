"""Settings: names, defaults, and one clear line for each wrong setting."""

from pathlib import Path

import pytest

from control_plane.cli.mqtt.engine import load_settings
from control_plane.settings import NAMES, Settings, SettingsError

SECRET = "0123456789abcdef0123456789abcdef"


def error_text(**env: str) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load(env)
    return str(caught.value)


def test_without_settings_the_defaults_apply() -> None:
    settings = Settings.load({})
    assert (settings.server_host, settings.server_port) == ("127.0.0.1", 8080)
    assert (settings.s3_bucket_name, settings.base_s3_path) == ("file-download-system-uploads", "uploads")
    assert (settings.s3_chunk_size, settings.presigned_url_expiry, settings.client_timeout) == (5_242_880, 900, 300)
    assert (settings.history_days, settings.require_proof, settings.topic_root) == (90, True, "fleet/v1")
    assert settings.mqtt_address == ("localhost", 1883, False)


def test_names_are_those_of_the_protocol() -> None:
    named = """SERVER_HOST SERVER_PORT ALLOWED_HOSTS TRUSTED_PROXIES MQTT_URL MQTT_USERNAME MQTT_PASSWORD DATABASE_URL
    AWS_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_ENDPOINT S3_PUBLIC_ENDPOINT S3_BUCKET_NAME S3_CHUNK_SIZE
    BASE_S3_PATH PRESIGNED_URL_EXPIRY CLIENT_TIMEOUT JWT_SECRET AUTH REQUIRE_PROOF HISTORY_DAYS TOPIC_ROOT LOG_LEVEL"""
    # Temporary credentials have a session token; S3_DIGEST selects what binds a URL to its bytes.
    more = "AWS_SESSION_TOKEN S3_DIGEST S3_ENCRYPTION S3_ADDRESSING MAX_TOKEN_LIFETIME CLIENT_MAX_UPLOADS"
    more += " CLIENT_MAX_BYTES WEBHOOK_NETWORKS MAX_JOB_FILES AUDIT_KEY_FILE AUDIT_BUCKET OTEL_EXPORTER_OTLP_ENDPOINT"
    more += " OIDC_ISSUER OIDC_AUDIENCE RATE_LIMIT REQUIRE_REASON FOUR_EYES_BYTES FOUR_EYES_CLIENTS FOUR_EYES_PATHS"
    more += " FOUR_EYES_SELECTOR SIGNING_KEY_FILE REQUIRE_SIGNED OPERATOR_KEY_FILE RECEIPTS DEVICE_KEYS_FILE"
    more += " BROKER_ACCESS BROKER_PID_FILE DEVICE_MQTT_URL DEVICE_CA_FILE ENROLL MQTT_CERTIFICATE MQTT_KEY"
    more += " TRUST_ROOT RECEIPT_KEYS JWT_SECRET_PREVIOUS"
    assert set(NAMES) == {*named.split(), *more.split()}


@pytest.mark.parametrize("name", ["md5", "SHA256", "crc32", "none"])
def test_a_digest_is_named_in_any_case(name: str) -> None:
    assert Settings.load({"S3_DIGEST": name, "REQUIRE_PROOF": "false"}).s3_digest == name.lower()


def test_proof_without_a_digest_is_refused() -> None:
    """Every upload would fail after its last byte."""
    text = error_text(S3_DIGEST="none")
    assert text == "S3_DIGEST=none: proves nothing but the size: choose a digest, or say REQUIRE_PROOF=false"
    assert not Settings.load({"S3_DIGEST": "none", "REQUIRE_PROOF": "false"}).require_proof


def test_keys_and_the_root_of_trust_are_checked_where_they_are_written() -> None:
    """Else a mistyped one would be noticed when a receipt does not verify, or a list is refused."""
    key, digest = "A" * 43, "aB" * 32
    settings = Settings.load({"RECEIPT_KEYS": f"{key}, {key}", "TRUST_ROOT": digest})
    assert (settings.receipt_key_list, settings.trust_root) == ((key, key), digest.lower())
    assert error_text(RECEIPT_KEYS=f"{key},{key}A") == (
        f"RECEIPT_KEYS={key},{key}A: must be public keys of 43 characters, joined by commas"
    )
    assert "must be the SHA-256 of a root of trust" in error_text(TRUST_ROOT=digest[1:])


def test_an_unknown_digest_is_one_line() -> None:
    assert "S3_DIGEST" in error_text(S3_DIGEST="sha1")


def test_an_empty_value_is_not_set() -> None:
    assert Settings.load({"JWT_SECRET": "", "AWS_ENDPOINT": "", "SERVER_PORT": ""}) == Settings.load({})


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("SERVER_PORT", "http", "SERVER_PORT=http: must be a whole number"),
        ("SERVER_PORT", "65536", "SERVER_PORT=65536: must be at most 65535"),
        ("SERVER_PORT", "tcp://10.0.0.1:80", "SERVER_PORT=tcp://10.0.0.1:80: must be a whole number"),
        ("PRESIGNED_URL_EXPIRY", "0", "PRESIGNED_URL_EXPIRY=0: must be at least 1"),
        ("PRESIGNED_URL_EXPIRY", "604801", "PRESIGNED_URL_EXPIRY=604801: must be at most 604800"),
        ("S3_CHUNK_SIZE", "5242879", "S3_CHUNK_SIZE=5242879: must be at least 5242880"),
        ("S3_CHUNK_SIZE", "67108865", "S3_CHUNK_SIZE=67108865: must be at most 67108864"),
        ("CLIENT_TIMEOUT", "5m", "CLIENT_TIMEOUT=5m: must be a whole number"),
        ("HISTORY_DAYS", "-1", "HISTORY_DAYS=-1: must be at least 1"),
        ("REQUIRE_PROOF", "perhaps", "REQUIRE_PROOF=perhaps: must be true or false"),
        ("AUTH", "none", "AUTH=none: must be 'on' or 'off'"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL=LOUD: must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        (
            "MQTT_URL",
            "tcp://host:1883",
            "MQTT_URL=tcp://host:1883: must look like mqtt://host:1883, mqtts://host:8883 or wss://host/mqtt",
        ),
        (
            "MQTT_URL",
            "mqtt://",
            "MQTT_URL=mqtt://: must look like mqtt://host:1883, mqtts://host:8883 or wss://host/mqtt",
        ),
        (
            "MQTT_URL",
            "mqtt://a..b",
            "MQTT_URL=mqtt://a..b: must look like mqtt://host:1883, mqtts://host:8883 or wss://host/mqtt",
        ),
        ("AWS_ENDPOINT", f"http://{'a' * 64}.example", None),
        (
            "MQTT_URL",
            "mqtt://host:0",
            "MQTT_URL=mqtt://host:0: must look like mqtt://host:1883, mqtts://host:8883 or wss://host/mqtt",
        ),
        ("MQTT_URL", "mqtt://host/fleet", "MQTT_URL=mqtt://host/fleet: must end after the port"),
        ("AWS_ENDPOINT", "localstack:4566", "AWS_ENDPOINT=localstack:4566: must look like https://host:port"),
        ("S3_BUCKET_NAME", "My_Bucket", None),
        ("BASE_S3_PATH", "a/../b", "BASE_S3_PATH=a/../b: must be folder names joined by /"),
        ("TOPIC_ROOT", "fleet/#", None),
        ("DATABASE_URL", "mysql://root:hunter2@db/x", "DATABASE_URL: must begin with sqlite:/// or postgresql://"),
        ("JWT_SECRET", "short", "JWT_SECRET: must be at least 32 bytes long, not 5"),
        ("MQTT_PASSWORD", "hunter2", "MQTT_PASSWORD: needs MQTT_USERNAME beside it"),
        ("AWS_ACCESS_KEY_ID", "AKIA", "AWS_ACCESS_KEY_ID: needs AWS_SECRET_ACCESS_KEY beside it"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2", "AWS_SECRET_ACCESS_KEY: needs AWS_ACCESS_KEY_ID beside it"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(name: str, value: str, line: str | None) -> None:
    text = error_text(**{name: value})
    assert text.startswith(name)
    assert "\n" not in text
    assert line is None or text == line


@pytest.mark.parametrize("host", ["[::1]", "[fe80::1%25eth0]", "broker.example.", "bröker.example", "mqtt_broker"])
def test_a_valid_host_name_is_accepted(host: str) -> None:
    assert Settings.load({"MQTT_URL": f"mqtt://{host}:1883"}).mqtt_address[1:] == (1883, False)


def test_two_wrong_values_are_two_lines() -> None:
    assert len(error_text(SERVER_PORT="x", HISTORY_DAYS="x").splitlines()) == 2


def test_no_error_and_no_repr_shows_a_secret() -> None:
    texts = [
        error_text(JWT_SECRET="hunter2"),
        error_text(DATABASE_URL="mysql://root:hunter2@db/x"),
        error_text(MQTT_URL="mqtt://me:hunter2@host"),
        error_text(AWS_ENDPOINT="https://me:hunter2@host"),
        repr(Settings.load({"JWT_SECRET": SECRET, "MQTT_USERNAME": "me", "MQTT_PASSWORD": "hunter2"})),
    ]
    assert [text for text in texts if "hunter2" in text or SECRET in text] == []


def test_the_error_has_no_context_with_values() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({"JWT_SECRET": "hunter2"})
    assert caught.value.__context__ is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "backhaul.example"])  # noqa: S104 - refused is the point
def test_without_a_secret_only_this_machine_is_served(host: str) -> None:
    text = error_text(SERVER_HOST=host)
    assert text.startswith(f"SERVER_HOST={host}: without JWT_SECRET")
    assert "\n" not in text
    assert Settings.load({"SERVER_HOST": host, "AUTH": "OFF"}).open_to_all
    assert not Settings.load({"SERVER_HOST": host, "JWT_SECRET": SECRET}).open_to_all


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_secret(host: str) -> None:
    assert Settings.load({"SERVER_HOST": host}).server_host == host


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("MQTT_ULR", "MQTT_URL"),
        ("MQTT_USER", "MQTT_USERNAME"),
        ("S3_BUCKET", "S3_BUCKET_NAME"),
        ("JWT_SECRET_KEY", "JWT_SECRET"),
        ("S3_CHUNKSIZE", "S3_CHUNK_SIZE"),
        ("S3_BUCKETNAME", "S3_BUCKET_NAME"),
        ("AWS_ENDPOIT", "AWS_ENDPOINT"),
        ("AWS_SECRET_KEY", "AWS_SECRET_ACCESS_KEY"),
        ("JWT_SECRETS", "JWT_SECRET"),
        ("PRESIGNED_URL_EXPIRES", "PRESIGNED_URL_EXPIRY"),
        ("REQUIRE_PROOFS", "REQUIRE_PROOF"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("AUHT", "AUTH"),
        ("MQT_URL", "MQTT_URL"),
        ("REQIRE_PROOF", "REQUIRE_PROOF"),
        ("SEVER_PORT", "SERVER_PORT"),
        ("LOG_LEVL", "LOG_LEVEL"),
    ],
)
def test_a_misspelt_name_stops_the_program(typo: str, meant: str) -> None:
    assert error_text(**{typo: "x"}) == f"{typo} is not a setting: did you mean {meant}?"


@pytest.mark.parametrize(
    "name",
    [
        "AWS_PROFILE",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_SECURITY_TOKEN",
        "AWS_ROLE_ARN",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "S3_ENDPOINT",
        "SERVER_NAME",
        "SERVER_SOFTWARE",
        "MQTT_SERVICE_HOST",
        "MQTT_PORT_1883_TCP_ADDR",
        "CLIENT_ID",
        "LOG_FORMAT",
        "DATABASE_HOST",
        "HISTFILE",
        "LS_COLORS",
    ],
)
def test_names_of_other_programs_are_ignored(name: str) -> None:
    assert Settings.load({name: "x"}) == Settings.load({})


def test_a_similar_name_beside_the_right_one_is_ignored() -> None:
    assert Settings.load({"MQTT_USER": "x", "MQTT_USERNAME": "y"}).mqtt_username == "y"


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("# ours\nSERVER_PORT=1111\nHISTORY_DAYS=7\nCLIENT_ID=restaurant-1\nCOMPOSE_PROJECT_NAME=x\n")
    monkeypatch.setenv("SERVER_PORT", "2222")
    settings = Settings.load(dotenv=dotenv)
    assert (settings.server_port, settings.history_days) == (2222, 7)


def test_an_unknown_name_in_the_file_stops_the_program(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("SERVER_PROT=1111\nANSWER=42\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load(dotenv=dotenv)
    assert str(caught.value).splitlines() == [
        f"{dotenv}: SERVER_PROT is not a setting: did you mean SERVER_PORT?",
        f"{dotenv}: ANSWER is not a setting",
    ]


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"JWT_SECRET=hunter2\xff\n")
    with pytest.raises(SettingsError, match=r"^/.*\.env cannot be read: ") as caught:
        Settings.load(dotenv=dotenv)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_file_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "debug")
    assert Settings.load(dotenv=tmp_path / ".env").log_level == "DEBUG"


def test_the_default_port_of_mqtts_is_8883() -> None:
    assert Settings.load({"MQTT_URL": "mqtts://broker.example"}).mqtt_address == ("broker.example", 8883, True)


def test_the_outer_slashes_of_a_prefix_are_removed() -> None:
    assert Settings.load({"BASE_S3_PATH": "/a/b/"}).base_s3_path == "a/b"


@pytest.mark.parametrize("name", ["JWT_SECRET", "AWS_SECRET_ACCESS_KEY", "MQTT_PASSWORD", "S3_BUCKET_NAME"])
def test_line_breaks_end_a_value_and_are_refused_within_without_the_value(name: str) -> None:
    """A secret with a line break would be shown by the library that refuses it as a header."""
    beside = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "MQTT_USERNAME": "me"}
    good = "a" * 40
    settings = Settings.load({**beside, name: f"{good}\r\n"})
    value = getattr(settings, name.lower())
    assert (value if isinstance(value, str) else value.get_secret_value()) == good
    text = error_text(**{**beside, name: f"hunter2\n{good}"})
    assert text == f"{name}: has a control character in it"


def test_the_default_database_is_the_same_file_in_every_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative default makes a new, empty database wherever the program is started."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    places = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        places.append(Settings.load({}).database)
    assert places == [f"sqlite:///{tmp_path}/data/backhaul/backhaul.db"] * 2
    assert Settings.load({"DATABASE_URL": "sqlite:///x.db"}).database == "sqlite:///x.db"


@pytest.mark.parametrize("name", ["MQTT_PASSWORD", "MQTT_USERNAME", "AWS_SECRET_ACCESS_KEY", "BASE_S3_PATH"])
def test_bytes_that_are_not_utf8_are_refused_without_their_text(name: str) -> None:
    """No message and no header carries them; a secret is not shown."""
    env = {"MQTT_USERNAME": "u", "AWS_ACCESS_KEY_ID": "k", name: "p\udcff"}
    assert error_text(**env) == f"{name}: is not UTF-8"


@pytest.mark.parametrize(
    ("url", "exposed"),
    [("mqtt://broker", True), ("mqtts://broker", False), ("mqtt://localhost", False), ("mqtt://[::1]:1884", False)],
)
def test_an_unencrypted_password_is_warned_of_unless_it_stays_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, *, exposed: bool
) -> None:
    """By every program that connects with it, at each start; it names the broker and not the password."""
    env = {"MQTT_URL": url, "MQTT_USERNAME": "u", "MQTT_PASSWORD": "hunter2"}
    text = Settings.load(env).exposure
    assert (text is not None) is exposed
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    load_settings()
    printed = capsys.readouterr().err
    assert ("unencrypted" in printed) is exposed
    assert "hunter2" not in printed
    assert Settings.load({"MQTT_URL": url}).exposure is None


@pytest.mark.parametrize("url", ["collector:4318", "http://me:secret@collector:4318", "http://collector:4318/?key=x"])
def test_a_collector_is_a_plain_address(url: str) -> None:
    """Its credentials are no part of the URL. A path is, at some vendors."""
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in error_text(OTEL_EXPORTER_OTLP_ENDPOINT=url)
    given = Settings.load({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example/otlp/"})
    assert given.otel_exporter_otlp_endpoint == "https://collector.example/otlp"
