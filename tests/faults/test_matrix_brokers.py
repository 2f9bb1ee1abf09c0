"""Every kind of broker of bad manners, end to end: an upload with the control plane behind it, and with the agent.

Rule: what is expected is in `Manners`. Without a reason there, the upload has to be completed through that broker; with
one, readiness or the agent's log names it, and the upload is completed when the broker behaves.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from broker.server import Broker
from tests.support.bad_manners import MANNERS, BadBroker, Manners
from tests.support.brokers import mosquitto
from tests.support.fault_sites import CHUNK, MIB, SiteProcess
from tests.support.matrix import MOST, Case, Outcome, agent_settings, running_case

__all__ = ["mosquitto"]

# A test waits for its case, and the first one for some cases before it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

CONTROL_PLANES: Final = 4
"""Control planes at a time."""

AT_PLANE: Final = [kind for kind, manners in MANNERS.items() if not manners.at_plane] + [
    "deaf",
    "keeps PUBACKs",
    "resets at a publish",
    "server busy",
]
"""Kinds that meet a whole control plane: those that work, and one of each way to fail. The messenger meets them all in
`tests/integration/test_broker_terms.py`."""

Cases = dict[str, Future["Passed"]]


@dataclass(frozen=True, slots=True)
class Passed:
    """One case at its end. `violations` are the limits of the broker that were exceeded."""

    violations: tuple[int, ...]
    outcome: Outcome


def passed(case: Case, broker: BadBroker, agent: SiteProcess, names: str, named: str) -> Passed:
    """One upload; `named` is where the reason `names` is looked for: `readiness` or `log`."""
    site, client_id = case.site, case.client_id
    path = site.file(client_id, "parts.bin", CHUNK + MIB)
    agent.start()
    case.until(case.answers, "the control plane to answer")
    if names:

        def found() -> bool:
            return names in (agent.log if named == "log" else case.readiness()["checks"]["broker"])

        case.until(found, lambda: f"{names!r} in {case.readiness()} or {agent.log}")
        broker.manners = Manners()
    case.until(lambda: site.ready() and site.connected(client_id), "the client to connect")
    upload_id = site.trigger(client_id, path)
    case.until(lambda: case.look(upload_id)["state"] == "completed", lambda: f"{case.look(upload_id)}")
    return Passed(tuple(broker.violations), case.outcome(case.readiness(), {upload_id: path}))


def by_agent(shared: Case, mosquitto: Broker, kind: str) -> Passed:
    """The agent is behind the broker, the control plane is not."""
    client_id = f"agent-{kind.replace(' ', '-')}"
    case = replace(shared, client_id=client_id, prefix=f"uploads/{client_id}/", seen={})
    with BadBroker(mosquitto.address.port, MANNERS[kind]) as broker:
        agent = case.site.agent(case.client_id, **agent_settings(case, broker.url))
        return passed(case, broker, agent, MANNERS[kind].at_agent, "log")


def by_plane(directory: Path, mosquitto: Broker, kind: str) -> Passed:
    """The control plane is behind the broker, the agent is not."""
    with (
        BadBroker(mosquitto.address.port, MANNERS[kind]) as broker,
        running_case(directory, mosquitto, broker.url) as case,
    ):
        agent = case.site.agent(case.client_id, **agent_settings(case, mosquitto.address.url))
        return passed(case, broker, agent, MANNERS[kind].at_plane, "readiness")


def chosen(request: pytest.FixtureRequest, test: str) -> list[str]:
    """The kinds of the selected tests."""
    return [kind for kind in MANNERS if any(item.name == f"{test}[{kind}]" for item in request.session.items)]


@pytest.fixture(scope="module")
def cases(
    request: pytest.FixtureRequest, mosquitto: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cases, Cases]]:
    """The cases of agents, all at once with one control plane, and those of control planes, some at a time."""
    home = tmp_path_factory.mktemp("brokers")
    agents = chosen(request, "test_an_agent_behind_it_works_or_names_its_reason")
    planes = chosen(request, "test_a_control_plane_behind_it_works_or_names_its_reason")
    with (
        running_case(home / "agents", mosquitto) as shared,
        ThreadPoolExecutor(CONTROL_PLANES) as pool,
        ThreadPoolExecutor(len(MANNERS)) as many,
    ):
        yield (
            {kind: many.submit(by_agent, shared, mosquitto, kind) for kind in agents},
            {kind: pool.submit(by_plane, home / kind.replace(" ", "-"), mosquitto, kind) for kind in planes},
        )
        pool.shutdown(wait=False, cancel_futures=True)


def faults(one: Passed) -> list[str]:
    """What is wrong with a case; empty when nothing is."""
    (sent,) = one.outcome.sent
    right = {
        "completed at once": (sent.upload["state"], sent.upload["attempt"]) == ("completed", 1),
        "equal": sent.equal,
        "no byte sent in vain": sent.received <= MOST * sent.size,
        "within the limits": one.violations == (),
        "nothing left": one.outcome.strays == (),
        "reachable": one.outcome.connected and len(one.outcome.listed) == 1,
    }
    return [what for what, holds in right.items() if not holds]


@pytest.mark.parametrize("kind", MANNERS)
def test_an_agent_behind_it_works_or_names_its_reason(cases: tuple[Cases, Cases], kind: str) -> None:
    assert faults(cases[0][kind].result()) == []


@pytest.mark.parametrize("kind", AT_PLANE)
def test_a_control_plane_behind_it_works_or_names_its_reason(cases: tuple[Cases, Cases], kind: str) -> None:
    assert faults(cases[1][kind].result()) == []
