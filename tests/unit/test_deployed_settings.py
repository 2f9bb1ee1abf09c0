"""Which settings of the control plane an operator of the production files can set, and which are fixed there.

Rule: a setting is passed on, or it stands here with the reason why not.
"""

import re
from pathlib import Path
from typing import Any, Final

import yaml

from control_plane.settings import NAMES

ROOT: Final = Path(__file__).parents[2]
PRODUCTION: Final = ROOT / "docker-compose.prod.yml"
BASE: Final = ROOT / "deploy/kubernetes/base"
EXAMPLE: Final = ROOT / "deploy/kubernetes/example/kustomization.yaml"
GUIDE: Final = ROOT / "docs/containers.md"

FIXED_IN_COMPOSE: Final = {
    "SERVER_HOST": "of the image: every address of the container",
    "SERVER_PORT": "Caddy and the health check ask at 8080",
    "ALLOWED_HOSTS": "BACKHAUL_PUBLIC_HOST, by which Caddy passes requests on",
    "TRUSTED_PROXIES": "Caddy is the one",
    "AUTH": "production serves nobody without a token",
    "JWT_SECRET": "a file of secrets/",
    "JWT_SECRET_PREVIOUS": "a file of secrets/",
    "DATABASE_URL": "a file of secrets/",
    "AWS_ACCESS_KEY_ID": "a file of secrets/",
    "AWS_SECRET_ACCESS_KEY": "a file of secrets/",
    "AWS_SESSION_TOKEN": "belongs to credentials that end within hours: a role of the machine renews its own",
    "MQTT_URL": "the broker beside it, by a loopback that the two share",
    "MQTT_USERNAME": "the account that the service `enroll` makes",
    "MQTT_PASSWORD": "the account that the service `enroll` makes",
    "MQTT_CERTIFICATE": "the listener on the loopback has no TLS",
    "MQTT_KEY": "the listener on the loopback has no TLS",
    "DEVICE_MQTT_URL": "BACKHAUL_PUBLIC_HOST and BACKHAUL_DEVICES_PORT",
    "DEVICE_CA_FILE": "a file of secrets/",
    "BROKER_ACCESS": "the service `devices` writes the accounts: the control plane cannot",
    "BROKER_PID_FILE": "the service `devices` tells the broker",
    "OPERATOR_KEY_FILE": "of an operator's terminal",
    "DEVICE_KEYS_FILE": "of an operator's terminal",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "the image has no exporter",
}
"""Setting → why `.env` does not change it in the container."""

FIXED_IN_KUBERNETES: Final = {
    *(
        "JWT_SECRET",
        "JWT_SECRET_PREVIOUS",
        "DATABASE_URL",
        "MQTT_PASSWORD",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    ),
    *("MQTT_CERTIFICATE", "MQTT_KEY", "AUDIT_KEY_FILE", "SIGNING_KEY_FILE"),
}
"""Files of the Secret `control-plane`. Every other setting may be a line of the overlay."""


def server() -> dict[str, Any]:
    """The service `server` of production."""
    found: dict[str, Any] = yaml.safe_load(PRODUCTION.read_text("utf-8"))["services"]["server"]
    return found


def taken(environment: dict[str, str | None]) -> set[str]:
    """The settings without a value in the file: compose takes that from `.env`, or from its own environment."""
    return {name for name, text in environment.items() if text is None}


def test_production_takes_every_setting_from_the_operator_but_those_that_are_fixed() -> None:
    assert taken(server()["environment"]) == {*NAMES} - FIXED_IN_COMPOSE.keys()


def test_what_is_fixed_in_production_is_no_other_setting_s_place() -> None:
    """A misspelt entry, or one whose value the file does take, would hide a setting."""
    environment = server()["environment"]
    assert {*NAMES} >= FIXED_IN_COMPOSE.keys()
    named = {name.removesuffix("_FILE") if name.removesuffix("_FILE") in NAMES else name for name in environment}
    assert named <= {*NAMES}


def test_the_image_has_no_exporter_of_traces() -> None:
    lock = (ROOT / "requirements/server.txt").read_text("utf-8")
    assert "opentelemetry-exporter" not in lock


def test_kubernetes_takes_every_setting_from_the_overlay_but_the_files_of_its_secret() -> None:
    documents = yaml.safe_load_all((BASE / "control-plane.yaml").read_text("utf-8"))
    pod = next(one for one in documents if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    # A variable of the container wins over one of the map.
    stronger = {name for one in container["env"] for name in (one["name"], one["name"].removesuffix("_FILE"))}
    assert container["envFrom"] == [{"configMapRef": {"name": "control-plane"}}]
    assert stronger & {*NAMES} == FIXED_IN_KUBERNETES
    overlay = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    (map_of_the_overlay,) = overlay["configMapGenerator"]
    assert (map_of_the_overlay["name"], map_of_the_overlay["behavior"]) == ("control-plane", "merge")


def test_the_guide_names_what_env_does_not_change() -> None:
    (sentence,) = re.findall(r"^\*\*Settings\.\*\*.*?\n\n", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    elsewhere = {"OPERATOR_KEY_FILE", "DEVICE_KEYS_FILE"}
    assert {*re.findall(r"`([A-Z0-9_]+)`", sentence)} & {*NAMES} >= FIXED_IN_COMPOSE.keys() - elsewhere
