"""`docker-compose.prod.yml` alone, with SQLite on its volume, as it comes up without further files.

Rule: what does not depend on the database is tested where PostgreSQL is.
"""

from collections.abc import Iterator

import pytest

from tests.support.engine_fixtures import bases, built, caddy_image, images
from tests.support.engine_site import DEVICE, SIZE, Site, running
from tests.support.engine_stack import eventually

__all__ = ["bases", "built", "caddy_image", "images"]
pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def site(caddy_image: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("sqlite")) as site:
        yield site


def test_it_answers_and_requires_a_token(site: Site) -> None:
    assert (site.secrets / "database_url").read_text().startswith("sqlite:///")
    assert "postgres" not in site.stack.running()
    assert (site.answer("/health"), site.answer("/clients")) == ("200", "401")


@pytest.mark.parametrize(
    "again", [("restart", "server"), ("up", "-d", "--force-recreate")], ids=["restart", "recreate"]
)
def test_a_row_outlives_the_container(site: Site, again: tuple[str, ...]) -> None:
    operator = site.operator("--header", f"Authorization: Bearer {site.token()}")
    eventually(lambda: operator.get(f"/status/{DEVICE}"), lambda found: found.get("connected") is True, 60.0)
    ended = operator.wait(operator.trigger(DEVICE))
    assert (ended["status"], ended["bytes_uploaded"]) == ("completed", SIZE), ended
    path = f"/uploads/{ended['upload_id']}"
    ended = eventually(lambda: operator.get(path), lambda found: found["receipt"] == "device", 60.0)
    site.stack.compose(*again)
    site.wait()
    found = operator.get(path)
    # What follows the completion, such as the receipt's copy in the bucket, may still have changed the row.
    assert found["updated_at"] >= ended["updated_at"]
    assert {**found, "updated_at": ended["updated_at"]} == ended
