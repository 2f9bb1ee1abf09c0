"""Every quirk of an object store, end to end: a control plane, an agent, a file of one PUT and a file of parts.

Rule: what is expected is in `Quirk`, so a new quirk is in the matrix at once. Without a `refusal` there an upload has
to be completed in its first attempt.
"""

import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from broker.server import Broker
from control_plane.cli.site.stack import BUCKET
from tests.support import local_names
from tests.support.brokers import mosquitto
from tests.support.fault_sites import TERMINAL
from tests.support.matrix import MOST, SIZES, Case, Outcome, agent_settings, running_case
from tests.support.strict_s3 import Quirk
from tests.support.strict_s3.storage import Bucket

__all__ = ["mosquitto"]

# A test waits for its case, and the first one for some cases before it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

AT_A_TIME: Final = 3
BY_PROXY: Final = {"S3_PUBLIC_ENDPOINT": "http://localhost:{proxy}"}
SETTINGS: Final[dict[Quirk, dict[str, str]]] = {
    Quirk.VIRTUAL_HOST_ONLY: {
        "AWS_ENDPOINT": "http://s3.test:{store}",
        "PYTHONPATH": str(Path(local_names.__file__).parent),
    },
    **{quirk: BY_PROXY for quirk in Quirk if quirk.name.startswith("PROXY_")},
}
"""What a quirk needs to have its effect: another host, or a name."""


def met(directory: Path, mosquitto: Broker, quirk: Quirk) -> Outcome:
    """The case of one quirk."""
    with running_case(directory, mosquitto, settings=SETTINGS.get(quirk)) as case:
        site, manner = case.site, quirk.value
        if manner.region is not None:
            case.store.storage.buckets[BUCKET] = Bucket()
        case.store.quirks.add(quirk)
        path = {"PYTHONPATH": site.plane.settings["PYTHONPATH"]} if "PYTHONPATH" in site.plane.settings else {}
        agent = site.agent(case.client_id, **agent_settings(case, mosquitto.address.url), **path)
        agent.start()
        files = [site.file(case.client_id, name, size) for name, size in SIZES.items()]
        case.until(case.answers, "the control plane to answer")
        case.until(lambda: _judged(case, manner.refusal), lambda: f"readiness: {case.readiness()}")
        ready = case.readiness()
        case.until(lambda: site.connected(case.client_id), "the client to connect")
        # It sends nothing before the first look at the uploads.
        agent.freeze()
        uploads = {site.trigger(case.client_id, file): file for file in files}
        _ended(case, uploads, quirk)
        agent.thaw()
        if manner.refusal:
            case.until(lambda: _named(case, uploads, manner.wait), lambda: f"the reasons: {case.seen}")
            if manner.wait is not None:
                case.store.quirks.clear()
            else:
                for upload_id in uploads:
                    site.post(f"/uploads/{upload_id}/cancel")
        case.until(lambda: _ended(case, uploads, quirk), lambda: f"the end of the uploads: {case.seen}")
        return case.outcome(ready, uploads)


def _judged(case: Case, refusal: str) -> bool:
    check = case.readiness()["checks"]["object_store"]
    return re.search(refusal, check) is not None if refusal else check == "ok"


def _ended(case: Case, uploads: dict[str, Path], quirk: Quirk) -> bool:
    shown = [case.look(upload_id) for upload_id in uploads]
    if quirk is Quirk.REMEMBERED_404:
        # A program of another, which polls for the object.
        storage = case.store.storage
        missing = {one["s3_key"] for one in shown} - {*storage.bucket(BUCKET).objects}
        storage.missed.update({(BUCKET, key): time.time() for key in missing})
    return all(one["state"] in TERMINAL for one in shown)


def _named(case: Case, uploads: dict[str, Path], wait: str | None) -> bool:
    for upload_id in uploads:
        case.look(upload_id)
    return all({wait or "object_store_refused"} & set(case.seen.get(upload_id, {})) for upload_id in uploads)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, mosquitto: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Quirk, Future[Outcome]]]:
    """The cases of the selected tests, some at a time."""
    chosen = [quirk for quirk in Quirk if any(f"[{quirk.name}]" in item.name for item in request.session.items)]
    home = tmp_path_factory.mktemp("matrix")
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {quirk: pool.submit(met, home / quirk.name.lower(), mosquitto, quirk) for quirk in chosen}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("quirk", Quirk, ids=lambda quirk: quirk.name)
def test_an_upload_is_completed_and_equal_or_names_its_reason(
    outcomes: dict[Quirk, Future[Outcome]], quirk: Quirk
) -> None:
    outcome, manner = outcomes[quirk].result(), quirk.value
    assert (outcome.ready["status"] == "ready") is not bool(manner.refusal)
    for one in outcome.sent:
        if not manner.refusal or manner.wait:
            assert (one.upload["state"], one.upload["error"], one.upload["attempt"]) == ("completed", None, 1)
            assert one.equal
        if manner.wait:
            assert manner.wait in one.reasons
        if manner.proofs:
            assert one.upload["proof"] in manner.proofs
    if manner.noted:
        assert outcome.ready["probe"]["notes"]


@pytest.mark.parametrize("quirk", Quirk, ids=lambda quirk: quirk.name)
def test_nothing_but_completed_objects_is_left(outcomes: dict[Quirk, Future[Outcome]], quirk: Quirk) -> None:
    assert outcomes[quirk].result().strays == ()


@pytest.mark.parametrize("quirk", Quirk, ids=lambda quirk: quirk.name)
def test_no_byte_is_sent_in_vain(outcomes: dict[Quirk, Future[Outcome]], quirk: Quirk) -> None:
    for one in outcomes[quirk].result().sent:
        least = one.size if one.upload["state"] == "completed" else 0
        assert least <= one.received <= MOST * one.size


@pytest.mark.parametrize("quirk", Quirk, ids=lambda quirk: quirk.name)
def test_the_client_is_reachable_afterwards(outcomes: dict[Quirk, Future[Outcome]], quirk: Quirk) -> None:
    outcome = outcomes[quirk].result()
    assert outcome.connected
    assert {Path(name).name for name in outcome.listed} == set(SIZES)
