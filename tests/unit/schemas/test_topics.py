"""Topics: a built topic parses back, and no client id reaches another client's topic.

Rule: protocol.md section 1 is repeated here as plain rows.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SchemaError
from schemas.messages import Birth, Command, Presence, Response, Status
from schemas.signing.documents import TrustDocument
from schemas.topics import (
    CLIENT_ID_PATTERN,
    CONTROL_PLANE,
    FLEET_CHANNELS,
    QOS,
    RETAINED,
    TOPICS,
    Channel,
    ParsedTopic,
    Party,
    Topics,
    require_client_id,
    valid_client_id,
)

DEVICE_CHANNELS = [channel for channel in Channel if channel not in FLEET_CHANNELS]
BAD_CLIENT_IDS = [
    *("", "+", "#", "a/b", "a+", "a#", "/", "..", "-a", "_a", ".a", "a b", "a\n", "a\0", "ü", "a" * 65, "$SYS"),
    *("control-plane", "control-plane-1", "control-planet", "cli-", "cli-7", "operator-x"),
]
BAD_ROOTS = ["", "/", "a/", "/a", "a//b", "+", "a/#", "a/+/b", "a b", "a\n", "ü", "a\0", "$share/x/y"]

client_ids = st.from_regex(CLIENT_ID_PATTERN, fullmatch=True).filter(valid_client_id)
roots = st.from_regex(r"[A-Za-z0-9._-]{1,9}(/[A-Za-z0-9._-]{1,9}){0,3}", fullmatch=True)
segments = st.sampled_from(["fleet", "v1", "+", "#", "", "a", "control-plane", "cli-1", *Channel])


def test_the_table_is_that_of_the_protocol() -> None:
    rows = [(str(row.channel), row.writer, row.reader, row.qos, row.retained, row.message) for row in TOPICS]
    assert rows == [
        ("command", Party.SERVICE, Party.DEVICE, 1, False, "Command"),
        ("response", Party.DEVICE, Party.SERVICE, 1, False, "Response"),
        ("status", Party.DEVICE, Party.SERVICE, 0, False, "Status"),
        ("presence", Party.DEVICE, Party.SERVICE, 1, True, "Presence"),
        ("birth", Party.SERVICE, Party.DEVICE, 1, False, "Birth"),
        ("keys", Party.SERVICE, Party.DEVICE, 1, True, "TrustDocument"),
    ]
    assert [row.per_client for row in TOPICS] == [True, True, True, True, False, False]
    assert set(QOS) == set(RETAINED) == set(Channel)
    kinds = (Command, Response, Status, Presence, Birth, TrustDocument)
    assert {row.message for row in TOPICS} == {kind.__name__ for kind in kinds}


def test_topics_are_those_of_the_protocol() -> None:
    topics = Topics()
    built = [topics.command("c"), topics.response("c"), topics.status("c"), topics.presence("c"), topics.birth()]
    assert [*built, topics.keys()] == [
        "fleet/v1/c/command",
        "fleet/v1/c/response",
        "fleet/v1/c/status",
        "fleet/v1/c/presence",
        "fleet/v1/control-plane/birth",
        "fleet/v1/control-plane/keys",
    ]


@given(root=roots, client_id=client_ids, channel=st.sampled_from(DEVICE_CHANNELS))
def test_a_built_topic_parses_back(root: str, client_id: str, channel: Channel) -> None:
    topics = Topics(root)
    assert topics.parse(topics.of(client_id, channel)) == ParsedTopic(channel, client_id)
    assert topics.parse(topics.birth()) == ParsedTopic(Channel.BIRTH, CONTROL_PLANE)
    assert topics.parse(topics.keys()) == ParsedTopic(Channel.KEYS, CONTROL_PLANE)


@given(levels=st.lists(segments, max_size=6), tail=st.text(max_size=5))
def test_a_parsed_topic_builds_back(levels: list[str], tail: str) -> None:
    topics = Topics()
    topic = "/".join([*levels, tail] if tail else levels)
    try:
        parsed = topics.parse(topic)
    except SchemaError:
        return
    fleet = parsed.channel in FLEET_CHANNELS
    built = topics.every(parsed.channel) if fleet else topics.of(parsed.client_id, parsed.channel)
    assert built == topic


@given(text=st.text(max_size=70))
def test_no_client_id_opens_another_level_or_a_wildcard(text: str) -> None:
    try:
        topic = Topics().command(text)
    except SchemaError:
        return
    assert topic.count("/") == 3
    assert not set("+#\0") & set(topic)


@given(text=st.text(max_size=20))
def test_no_root_holds_a_wildcard(text: str) -> None:
    try:
        root = Topics(text).root
    except SchemaError:
        return
    assert not set("+#\0$ ") & set(root)
    assert all(root.split("/"))


@pytest.mark.parametrize("client_id", BAD_CLIENT_IDS)
def test_a_bad_client_id_is_refused_everywhere(client_id: str) -> None:
    assert not valid_client_id(client_id)
    with pytest.raises(SchemaError, match="client id"):
        require_client_id(client_id)
    for channel in DEVICE_CHANNELS:
        with pytest.raises(SchemaError):
            Topics().of(client_id, channel)
        with pytest.raises(SchemaError):
            Topics().parse(f"fleet/v1/{client_id}/{channel}")


@pytest.mark.parametrize("client_id", ["a", "7", "a" * 64, "restaurant-1", "A.b_c-D", "operator", "cli"])
def test_a_good_client_id_is_accepted(client_id: str) -> None:
    assert require_client_id(client_id) == client_id


@pytest.mark.parametrize("root", BAD_ROOTS)
def test_a_bad_root_is_refused(root: str) -> None:
    with pytest.raises(SchemaError, match="topic root"):
        Topics(root)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "fleet/v1",
        "fleet/v1/a",
        "fleet/v1/a/",
        "fleet/v1/a/commands",
        "fleet/v1/a/command/x",
        "fleet/v1/a/b/command",
        "x/fleet/v1/a/command",
        "fleet/v2/a/command",
        "fleet/v1/a/birth",
        "fleet/v1/a/keys",
        "fleet/v1/control-plane/command",
        "/fleet/v1/a/command",
        "fleet/v1/+/command",
    ],
)
def test_a_foreign_topic_is_refused(topic: str) -> None:
    with pytest.raises(SchemaError):
        Topics().parse(topic)


@pytest.mark.parametrize("channel", sorted(FLEET_CHANNELS))
def test_a_device_has_no_topic_of_the_fleet(channel: Channel) -> None:
    with pytest.raises(SchemaError, match=channel):
        Topics().of("restaurant-1", channel)


def test_one_filter_covers_the_whole_fleet() -> None:
    assert Topics("a/b").every(Channel.STATUS) == "a/b/+/status"
    assert Topics("a/b").every(Channel.BIRTH) == "a/b/control-plane/birth"
