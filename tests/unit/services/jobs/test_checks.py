"""Whether a path can lie below a root of a client."""

import pytest

from control_plane.domain.jobs.spec import FileQuery, Targets, Window
from control_plane.services.errors import BadInput
from control_plane.services.jobs.checks import warnings_of
from tests.support.fake_services import NOW, a_client
from tests.support.jobs import a_spec

ABLE = ("select_files",)


def warnings(path: str, *roots: tuple[str, ...], **changes: object) -> list[str]:
    """The warnings of a job with this path over clients with these roots."""
    clients = [a_client(f"c{n}", roots=one, capabilities=ABLE, default_file=None) for n, one in enumerate(roots)]
    spec = a_spec(targets=Targets(clients=("*",)), files=FileQuery(paths=(path,)), **changes)
    return warnings_of("j", spec, clients, NOW)


@pytest.mark.parametrize("path", ["/data/a", "/data/*.csv", "/d*/x", "/**", "/data/in/**", "/data/in", "/[dx]ata/a"])
def test_a_path_that_may_lie_below_the_root_is_allowed(path: str) -> None:
    """Above its first wildcard it is above the root, or below it."""
    assert warnings(path, ("/data",)) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "/data2/*.csv", "/dat", "/var/**/x", "/"])
def test_a_path_outside_every_root_is_refused(path: str) -> None:
    """The sentence names it."""
    with pytest.raises(BadInput, match=r"files.paths: .* is outside the roots of every client"):
        warnings(path, ("/data",), ("/data", "/srv"))


def test_a_path_outside_some_roots_is_a_warning() -> None:
    """A client whose roots are not known is not judged."""
    assert warnings("/srv/a", ("/data",), ("/srv",)) == ["1 client does not allow '/srv/a': c0"]
    assert warnings("/etc/a", ("/data",), ()) == ["1 client does not allow '/etc/a': c0"]


def test_a_path_that_names_the_tick_is_judged_as_it_will_be() -> None:
    """The folder of the day is below the root."""
    assert warnings("/data/{tick:%Y%m%d}/*.csv", ("/data/20251101",)) == []


def test_a_window_of_the_device_needs_its_time_zone() -> None:
    """Else the job's counts."""
    found = warnings("/data/a", ("/data",), windows=(Window("0 1 * * *", 60.0, "device"),))
    assert found == ["1 client reports no time zone: its windows are in UTC: c0"]
