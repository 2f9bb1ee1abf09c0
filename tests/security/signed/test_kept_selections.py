"""A kept selection is read by keys for the same paths alone: it names files that another key may not list.

Rule: what an id of a selection opens is decided by who signed, never by who knows the id.
"""

from pathlib import Path
from typing import Any

import pytest

from device_agent.files.roots import Roots
from device_agent.queries.selections import PATIENCE
from schemas.codec import decode_response
from schemas.messages import Response, Selection
from schemas.signing.ed25519 import Signer
from tests.unit.device_agent.agent_loop import Works
from tests.unit.device_agent.trust.fleet import ALICE, BOB, PLANE, entry, key, operator
from tests.unit.device_agent.trust.loop import SignedLoop

CAROL = key("carol")


class Device:
    """An agent over two folders, of which ALICE and CAROL may read one, BOB the other, and the control plane both."""

    def __init__(self, folder: Path) -> None:
        self.mine, self.theirs = folder / "mine", folder / "theirs"
        self.outside = folder / "outside"
        for path in (self.mine, self.theirs):
            path.mkdir()
            (path / "a.csv").write_text("x")
            (path / "b.csv").write_text("x")
        self._pools: dict[str, Works] = {}
        entries = (
            entry(),
            operator(ALICE, "alice", paths=(f"{self.mine}/**",)),
            operator(CAROL, "carol", paths=(f"{self.mine}/**",)),
            operator(BOB, "bob", paths=(f"{self.theirs}/**", f"{self.outside}/**")),
        )
        roots = Roots((str(self.mine), str(self.theirs)))
        self._agent = SignedLoop(folder / "state", *entries, roots=roots, make_pool=self._make)

    def _make(self, name: str, count: int) -> Works:
        self._pools[name] = Works(name, count)
        return self._pools[name]

    def ask(self, by: Signer, message_id: str, folder: Path, **changes: Any) -> list[Response]:  # noqa: ANN401
        request = {"job_id": f"of {message_id}", "paths": [f"{folder}/*.csv"], "pick": "path", "limit": 1, **changes}
        answers = self._agent.send("select_files", message_id, by=by, **request)
        return [*answers, *self.settle()]

    def settle(self) -> list[Response]:
        """Read pages, not walk; the responses meanwhile."""
        loop, found = self._agent.loop, list[bytes]()
        while True:
            self._pools["query"].run()
            arrived = loop.inbox.take(0.0)
            if not arrived:
                return [decode_response(one) for one in found]
            before = len(loop.network.published)
            loop.agent.turn(arrived)
            found += loop.network.published[before:]

    def walk(self) -> list[Response]:
        self._pools["select"].run()
        return self.settle()

    def waited(self) -> list[Response]:
        loop = self._agent.loop
        before = len(loop.network.published)
        loop.now += PATIENCE
        loop.agent.turn(())
        return [decode_response(one) for one in loop.network.published[before:]]

    def select(self, by: Signer, message_id: str, folder: Path, **changes: Any) -> list[Response]:  # noqa: ANN401
        """Ask, and walk if that is needed."""
        return [*self.ask(by, message_id, folder, **changes), *self.walk()]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def names(answers: list[Response]) -> list[str]:
    """The files of these answers, which are pages alone."""
    pages = [one.payload for one in answers]
    assert all(isinstance(page, Selection) for page in pages)
    return [entry.path for page in pages if isinstance(page, Selection) for entry in page.entries]


@pytest.mark.parametrize("theirs", [BOB, PLANE], ids=["another person", "the control plane"])
def test_a_page_of_another_key_is_not_given_to_who_knows_its_id(device: Device, theirs: Signer) -> None:
    assert names(device.select(theirs, "theirs", device.theirs)) == [f"{device.theirs}/a.csv"]
    answers = device.select(ALICE, "mine", device.mine, selection="theirs", offset=1)
    assert names(answers) == [f"{device.mine}/a.csv"]
    assert [one.payload.selection for one in answers if isinstance(one.payload, Selection)] == ["mine"]


def test_a_selection_of_the_same_id_is_another_one_for_another_key(device: Device) -> None:
    assert names(device.select(BOB, "same", device.theirs)) == [f"{device.theirs}/a.csv"]
    assert names(device.select(ALICE, "same", device.mine)) == [f"{device.mine}/a.csv"]
    assert names(device.select(BOB, "next", device.theirs, selection="same", offset=1)) == [f"{device.theirs}/b.csv"]


def test_a_walk_of_another_key_is_not_waited_for(device: Device) -> None:
    """Not its pages when it ends, nor the job that it is for while it runs."""
    assert device.ask(BOB, "theirs", device.theirs) == []
    assert device.ask(ALICE, "mine", device.mine, selection="theirs") == []
    unfinished = {one.message_id: one.payload for one in device.waited()}
    assert unfinished["mine"] == Selection("of mine", "mine", complete=False)
    assert names(device.walk()) == []
    assert names(device.select(ALICE, "later", device.mine, selection="mine")) == [f"{device.mine}/a.csv"]


def test_a_failure_of_another_key_is_neither_told_nor_used_up(device: Device) -> None:
    assert device.ask(BOB, "theirs", device.outside) == []
    assert [one.message_id for one in device.waited()] == ["theirs"]
    assert device.walk() == []
    assert names(device.select(ALICE, "mine", device.mine, selection="theirs")) == [f"{device.mine}/a.csv"]
    answers = device.ask(BOB, "next", device.outside, selection="theirs")
    assert [(one.message_id, one.error) for one in answers] == [("next", "path_not_allowed")]


@pytest.mark.parametrize("by", [ALICE, CAROL], ids=["the same key", "a key for the same paths"])
def test_who_may_read_the_same_paths_reads_on(device: Device, by: Signer) -> None:
    assert names(device.select(ALICE, "first", device.mine)) == [f"{device.mine}/a.csv"]
    answers = device.ask(by, "second", device.mine, selection="first", offset=1)
    assert names(answers) == [f"{device.mine}/b.csv"]
