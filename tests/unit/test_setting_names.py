"""The names of settings on both sides: which are allowed, which are taken for a misspelt one, and which are not."""

from types import ModuleType

import pytest

from control_plane import settings as control_plane
from device_agent import settings as agent

DEBIAN = """SHELL PWD LOGNAME XDG_SESSION_TYPE HOME LANG LC_ALL LC_CTYPE LS_COLORS LESSOPEN LESSCLOSE SSH_CONNECTION
SSH_CLIENT SSH_TTY SSH_AUTH_SOCK XDG_SESSION_CLASS XDG_SESSION_ID XDG_RUNTIME_DIR XDG_DATA_DIRS XDG_CONFIG_DIRS TERM
USER SHLVL PATH MAIL OLDPWD EDITOR VISUAL PAGER DISPLAY XAUTHORITY DBUS_SESSION_BUS_ADDRESS HISTFILE HISTSIZE
HISTCONTROL HISTTIMEFORMAT COLORTERM MANPATH INFOPATH PS1 TMPDIR TZ DEBIAN_FRONTEND SUDO_USER SUDO_UID SUDO_COMMAND _"""
DOCKER = """HOSTNAME HOME PATH LANG GPG_KEY PYTHON_VERSION PYTHON_SHA256 PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE
PIP_NO_CACHE_DIR SSL_CERT_FILE SSL_CERT_DIR HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy no_proxy DOCKER_HOST
CONTAINER_NAME DATABASE_HOST DATABASE_PORT DATABASE_NAME DATABASE_USER DATABASE_PASSWORD POSTGRES_USER POSTGRES_PASSWORD
POSTGRES_DB REDIS_URL SECRET_KEY ALLOWED_HOSTS DEBUG LOGLEVEL LOG_FORMAT OAUTH XAUTH AUTHOR PATH FILES PORT HOST
GS_BUCKET_NAME"""
SYSTEMD = """INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID STATE_DIRECTORY RUNTIME_DIRECTORY CACHE_DIRECTORY
LOGS_DIRECTORY CONFIGURATION_DIRECTORY CREDENTIALS_DIRECTORY NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID MAINPID
LISTEN_FDS LISTEN_PID LISTEN_FDNAMES MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE LANG PATH USER LOGNAME HOME SHELL"""
AWS = """AWS_PROFILE AWS_DEFAULT_REGION AWS_DEFAULT_OUTPUT AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE AWS_CA_BUNDLE
AWS_EC2_METADATA_DISABLED AWS_ROLE_ARN AWS_ROLE_SESSION_NAME AWS_WEB_IDENTITY_TOKEN_FILE AWS_STS_REGIONAL_ENDPOINTS
AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_ENDPOINT_URL_STS AWS_SECURITY_TOKEN AWS_MAX_ATTEMPTS AWS_RETRY_MODE
AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CONTAINER_CREDENTIALS_RELATIVE_URI AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE
AWS_EXECUTION_ENV AWS_PAGER AWS_USE_FIPS_ENDPOINT AWS_SDK_LOAD_CONFIG AWS_REQUEST_CHECKSUM_CALCULATION"""


def service_links(*names: str) -> dict[str, str]:
    """The variables that Kubernetes sets in every pod for each service of its namespace."""
    links: dict[str, str] = {}
    for name in names:
        tcp = f"{name}_PORT_1883_TCP"
        links |= {
            f"{name}_SERVICE_HOST": "10.0.0.1",
            f"{name}_SERVICE_PORT": "1883",
            f"{name}_SERVICE_PORT_MQTT": "1883",
            f"{name}_PORT": "tcp://10.0.0.1:1883",
            tcp: "tcp://10.0.0.1:1883",
            f"{tcp}_PROTO": "tcp",
            f"{tcp}_PORT": "1883",
            f"{tcp}_ADDR": "10.0.0.1",
        }
    return links


ORDINARY = {
    "a Debian shell": dict.fromkeys(DEBIAN.split(), "x"),
    "a container": dict.fromkeys(DOCKER.split(), "x"),
    "a systemd unit": dict.fromkeys(SYSTEMD.split(), "x"),
    "AWS": dict.fromkeys(AWS.split(), "x"),
    "Kubernetes": service_links(
        "KUBERNETES", "MQTT", "MOSQUITTO", "SERVERS", "BACKHAUL_SERVER", "S3", "DATABASE", "CLIENT"
    ),
}


SIDES = pytest.mark.parametrize("side", [control_plane, agent], ids=["control plane", "agent"])


def test_each_side_allows_the_names_of_the_other() -> None:
    assert set(control_plane.NAMES) == agent.CONTROL_PLANE_NAMES
    assert set(agent.NAMES) == control_plane.AGENT_NAMES


@SIDES
@pytest.mark.parametrize("environment", ORDINARY.values(), ids=ORDINARY)
def test_no_name_of_an_ordinary_environment_counts_as_misspelt(environment: dict[str, str], side: ModuleType) -> None:
    assert side.SPELLING.misspelt(environment) == []


@pytest.mark.parametrize(
    ("side", "name"),
    [(side, name) for side in (control_plane, agent) for name in side.NAMES],
)
def test_two_swapped_letters_are_found_in_every_name(side: ModuleType, name: str) -> None:
    at = max(at for at in range(len(name) - 1) if name[at] != name[at + 1])
    swapped = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    assert side.SPELLING.misspelt({swapped: "x"}) == [f"{swapped} is not a setting: did you mean {name}?"]


@pytest.mark.parametrize(
    ("side", "name"),
    [(side, name) for side in (control_plane, agent) for name in side.NAMES if name != "AUTH"],
)
def test_one_wrong_one_missing_and_one_extra_letter_are_found(side: ModuleType, name: str) -> None:
    for slip in (f"{name[:-1]}Q", f"{name[0]}{name[2:]}", f"{name}Q"):
        assert side.SPELLING.misspelt({slip: "x"}) == [f"{slip} is not a setting: did you mean {name}?"]


@SIDES
def test_a_file_that_nothing_has_read_into_its_setting_is_reported(side: ModuleType) -> None:
    """`deploy/containers/with-secrets` reads it; without that the program would start without the password."""
    file = {"MQTT_PASSWORD_FILE": "/run/secrets/mqtt"}
    assert side.SPELLING.misspelt(file) == ["MQTT_PASSWORD_FILE is not a setting: did you mean MQTT_PASSWORD?"]
    assert side.SPELLING.misspelt({**file, "MQTT_PASSWORD": "x"}) == []


def test_a_setting_of_the_other_side_is_not_misspelt() -> None:
    """`CLIENT_ID` is in the environment of a machine that runs both."""
    assert control_plane.SPELLING.misspelt(dict.fromkeys(agent.NAMES, "x")) == []
    assert agent.SPELLING.misspelt(dict.fromkeys(control_plane.NAMES, "x")) == []
