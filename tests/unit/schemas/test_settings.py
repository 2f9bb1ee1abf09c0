"""The names of settings: those of both sides, and no ordinary environment in which one of them seems misspelt."""

import pytest

from control_plane import settings as plane
from device_agent import settings as agent
from schemas.settings import AGENT, CONTROL_PLANE, misspelt

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
    """What Kubernetes tells every pod of each service of its namespace."""
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


def test_the_names_are_those_that_either_side_reads() -> None:
    assert set(plane.NAMES) == CONTROL_PLANE
    assert set(agent.NAMES) == AGENT


@pytest.mark.parametrize("known", [CONTROL_PLANE, AGENT], ids=["control plane", "agent"])
@pytest.mark.parametrize("environment", ORDINARY.values(), ids=ORDINARY)
def test_no_ordinary_environment_is_complained_about(environment: dict[str, str], known: frozenset[str]) -> None:
    assert misspelt(environment, known) == []


@pytest.mark.parametrize("name", sorted(CONTROL_PLANE | AGENT))
def test_two_letters_that_changed_places_are_seen_in_every_name(name: str) -> None:
    known = CONTROL_PLANE if name in CONTROL_PLANE else AGENT
    swapped = name[:-2] + name[-1] + name[-2]
    assert misspelt({swapped: "x"}, known) == [f"{swapped} is not a setting: did you mean {name}?"]


def test_a_setting_of_the_other_side_is_no_slip() -> None:
    """`CLIENT_ID` stands in the environment of a machine that runs both."""
    assert misspelt(dict.fromkeys(AGENT, "x"), CONTROL_PLANE) == []
    assert misspelt(dict.fromkeys(CONTROL_PLANE, "x"), AGENT) == []
