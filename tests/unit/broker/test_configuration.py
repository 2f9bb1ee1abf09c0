"""The text of the development configurations."""

import tomllib
from pathlib import Path

from broker import configuration


def test_the_development_broker_listens_on_loopback_and_nowhere_else() -> None:
    text = configuration.development_mosquitto(port=1234, directory=Path("/state"), persistence=False)
    assert [line for line in text.splitlines() if "listener" in line] == ["listener 1234 127.0.0.1"]
    assert text.startswith("listener")
    assert tomllib.loads(configuration.embedded_toml(port=1234))["v5"]["1"]["listen"] == "127.0.0.1:1234"


def test_without_persistence_there_is_no_database() -> None:
    text = configuration.development_mosquitto(port=1234, directory=Path("/state"), persistence=False)
    assert configuration.database(text) is None


def test_the_path_of_the_database_is_read_from_the_configuration() -> None:
    text = configuration.development_mosquitto(port=1234, directory=Path("/state dir"), persistence=True)
    assert configuration.database(text) == Path("/state dir/mosquitto.db")
    assert configuration.database(text + "persistence_file other.db\n") == Path("/state dir/other.db")


def test_comments_are_not_options() -> None:
    assert configuration.option("#user root\n# user root\n", "user") is None
    assert configuration.option("user one\nuser two\n", "user") == "two"
