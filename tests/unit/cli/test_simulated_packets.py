"""The packets of simulated devices, read and written by the tests' own codec, which was made from the standard alone.

Rule: no broker; the two codecs share no line.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.cli.simulate import packets
from tests.support import mqtt_packets as theirs
from tests.support.mqtt_packets import Property

TOPICS = st.text(min_size=1, max_size=80)


def decoded(data: bytes) -> theirs.Packet:
    taken = theirs.take_frame(data)
    assert taken is not None
    first, body, rest = taken
    assert rest == b""
    return theirs.decode(first, body)


@given(topic=TOPICS, payload=st.binary(max_size=300), packet_id=st.integers(0, 65_535), expiry=st.integers(0, 2**31))
def test_a_message_decodes_to_what_was_encoded(topic: str, payload: bytes, packet_id: int, expiry: int) -> None:
    data = packets.publish(packets.text(topic), payload, packet_id=packet_id, retain=bool(expiry), expiry=expiry)
    packet = decoded(data)
    assert (packet.topic, packet.payload, packet.packet_id) == (topic, payload, packet_id)
    assert (packet.qos, packet.retain) == (int(packet_id > 0), expiry > 0)
    assert packet.properties.get(Property.MESSAGE_EXPIRY, 0) == expiry


PAIRS = st.lists(st.tuples(st.text(max_size=20), st.text(max_size=90)), max_size=3)


@given(pairs=PAIRS, expiry=st.integers(0, 2**31), payload=st.binary(max_size=200))
def test_the_user_properties_of_a_message_are_written_and_read(
    pairs: list[tuple[str, str]], expiry: int, payload: bytes
) -> None:
    data = packets.publish(packets.text("t"), payload, packet_id=7, expiry=expiry, properties=pairs)
    assert decoded(data).properties.get(Property.USER, []) == pairs
    [(first, body)] = packets.PacketReader().feed(data)
    read = packets.read_publish(first, body)
    assert (list(read.properties), read.payload) == (pairs, payload)


def test_the_properties_of_a_broker_beside_the_user_s_are_skipped() -> None:
    properties = theirs.encode_properties(
        {0x01: 1, 0x23: 5, 0x08: "answer/here", 0x03: "text/plain", Property.USER: [("kid", "k"), ("kid", "l")]}
    )
    read = packets.read_publish(0x30, packets.text("t") + properties + b"{}")
    assert (list(read.properties), read.payload) == ([("kid", "k"), ("kid", "l")], b"{}")


@given(messages=st.lists(st.tuples(TOPICS, st.binary(max_size=20_000)), max_size=4), cut=st.integers(1, 50))
def test_a_stream_gives_the_same_packets_for_any_split(messages: list[tuple[str, bytes]], cut: int) -> None:
    data = b"".join(packets.publish(packets.text(topic), payload, packet_id=7) for topic, payload in messages)
    step = max(1, len(data) // cut)
    frames = packets.PacketReader()
    found = [one for start in range(0, len(data), step) for one in frames.feed(data[start : start + step])]
    read = [packets.read_publish(first, body) for first, body in found]
    assert [(message.topic, message.payload, message.packet_id) for message in read] == [(*one, 7) for one in messages]


def test_bytes_that_are_not_mqtt_are_refused() -> None:
    with pytest.raises(ValueError, match="not MQTT"):
        packets.PacketReader().feed(b"\x30\xff\xff\xff\xff\xff")


@pytest.mark.parametrize("password", [None, "secret"])
def test_a_connect_packet_matches_the_standard(password: str | None) -> None:
    username = None if password is None else "device"
    will = packets.Will("fleet/v1/device/presence", b"gone", 10, [("kid", "k"), ("signature", "s")])
    ours = packets.Connect(
        client_id="device", username=username, password=password, session_expiry=600, receive_maximum=16, will=will
    )
    other = theirs.Connect(
        "device",
        username,
        password,
        clean_start=False,
        keepalive=30,
        will=theirs.Will(will.topic, will.payload, delay=10, pairs=will.properties),
        properties={Property.SESSION_EXPIRY: 600, Property.RECEIVE_MAXIMUM: 16},
    )
    assert ours.encode() == other.encode()


def test_the_receive_maximum_is_read_from_the_properties() -> None:
    properties = theirs.encode_properties(
        {Property.USER: [("name", "value")], 0x12: "assigned", Property.MAXIMUM_QOS: 1, Property.RECEIVE_MAXIMUM: 20}
    )
    assert packets.read_receive_maximum(b"\x00\x00" + properties) == 20
    assert packets.read_receive_maximum(b"\x00\x00\x00") == packets.UNLIMITED
