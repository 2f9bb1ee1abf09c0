"""A site on one machine: the broker's configuration, and the report of what its object store enforces."""

from pathlib import Path

from broker.process import BrokerAddress
from control_plane.cli.site.broker import authenticated_configuration
from control_plane.cli.site.up import enforced

SHIPPED = Path(__file__).parents[3] / "mosquitto.conf"
DEVICES, SERVICES = BrokerAddress("192.0.2.7", 1883), BrokerAddress("127.0.0.1", 1884)


def options(text: str) -> list[str]:
    """The options that are set, in their order, without comments and blank lines."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_a_listening_site_runs_the_shipped_configuration() -> None:
    text = authenticated_configuration(Path("/srv/site"), DEVICES, SERVICES)
    for ours, theirs in (
        ("/srv/site/access/", "/etc/mosquitto/backhaul/"),
        ("/srv/site/", "/var/lib/mosquitto/"),
        ("listener 1883 192.0.2.7", "listener 1883"),
    ):
        text = text.replace(ours, theirs)
    shipped = options(SHIPPED.read_text())
    # The order matters only from the first listener on: what stands there belongs to the listener above it.
    begin = shipped.index("listener 1883")
    assert options(text)[-len(shipped[begin:]) :] == shipped[begin:]
    assert set(options(text)) == set(shipped)


def test_the_enforced_digests_are_described_as_text() -> None:
    probe = {"part_digests": ["md5"], "object_digests": [], "if_none_match": True, "etag_is_md5": False}
    assert enforced(probe) == "parts bound by md5; no overwriting when told so"
    assert enforced({}) == enforced(None) == "it has not been probed"
    assert enforced({"part_digests": []}) == "nothing"
