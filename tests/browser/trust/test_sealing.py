"""Sealing: the form checks the recipients as the server does, and the upload says how its object is opened."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from schemas.errors import SchemaError
from schemas.sealing.recipients import public_key
from tests.browser.conftest import Shoot
from tests.browser.settled import fits
from tests.support.age import Identity, new_identity
from tests.support.sites import Fleet

Visit = Callable[[str], Page]
CONTENT = b"turnover\n" * 10_000


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """Who may open the objects."""
    return new_identity(tmp_path_factory.mktemp("identity"))


@pytest.fixture(scope="module")
def device(site: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a device that is connected."""
    file = tmp_path_factory.mktemp("files") / "it's sales.csv"
    file.write_bytes(CONTENT)
    site.attach("till-1", file, ALLOWED_ROOTS=str(file.parent))
    return file


def test_the_page_takes_the_recipients_that_the_server_takes(visit: Visit, identity: Identity) -> None:
    """Each letter of one changed, and what is near to one."""
    right = identity.recipient
    tried = [right, right.upper(), f"{right}q", right[:-1], "age1", "", f" {right}", right.replace("age1", "agf1")]
    tried += [right[:at] + ("q" if right[at] != "q" else "p") + right[at + 1 :] for at in range(len(right))]
    # With a right checksum, and bits after the key that are none of it.
    tried += ["age1" + "q" * 52 + "5cu47z", "age1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0savhh7m"]

    def taken(recipient: str) -> bool:
        try:
            return len(public_key(recipient)) == 32
        except SchemaError:
            return False

    module = "async (all) => all.map((await import('/static/views/new/recipients.js')).isRecipient)"
    assert visit("/").evaluate(module, tried) == [taken(one) for one in tried]
    assert [taken(one) for one in tried].count(True) >= 2


def test_a_file_is_sealed_from_the_form_and_opened_as_its_view_says(
    visit: Visit, site: Fleet, device: Path, identity: Identity, shoot: Shoot, tmp_path: Path
) -> None:
    page = visit(f"/new/trigger?client=till-1&path={device}")
    page.get_by_text("Seal for recipients").click()
    field = page.get_by_label("Recipients", exact=True)
    wrong = identity.recipient[:-1] + ("q" if identity.recipient[-1] != "q" else "p")
    field.fill(wrong)
    field.press("Enter")
    expect(page.get_by_text("is no age recipient")).to_be_visible()
    expect(field).to_have_attribute("aria-invalid", "true")
    shoot("seal-wrong", 360, "light")
    assert fits(page, 360), "a recipient is one long word"
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_role("button", name=f"Remove {wrong}").click()
    field.fill(identity.recipient)
    field.press("Enter")
    expect(page.get_by_text("is no age recipient")).to_have_count(0)
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Compression").select_option("gzip")
    expect(page.get_by_text("A sealed file is not compressed")).to_be_visible()
    page.get_by_label("Compression").select_option("none")
    shown = json.loads(page.get_by_label("The request as JSON").inner_text())
    assert shown["options"] == {"encrypt_to": [identity.recipient]}
    shoot("seal", 1280, "light")
    page.get_by_role("button", name="Request the upload").click()
    expect(page.locator(".subtitle")).to_contain_text("completed")
    card = page.get_by_role("region", name="Sealed")
    expect(card).to_contain_text(identity.recipient)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in {"serious", "critical"}] == []
    for width in (360, 1600):
        shoot("sealed", width, "dark")
    # The two commands as they stand, where the identity is.
    (tmp_path / "identity.txt").write_bytes(identity.path.read_bytes())
    commands = "\n".join(card.locator(".copyable code").all_inner_texts())
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": programs, "HOME": str(tmp_path), "BACKHAUL_URL": site.site.server, "NO_PROXY": "*"}
    done = subprocess.run(
        ["/bin/sh", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    opened = [file for file in tmp_path.iterdir() if file.is_file() and file.read_bytes() == CONTENT]
    assert len(opened) == 1, commands
    assert re.search(r"\.age$", str(site.get("/uploads")["uploads"][0]["s3_key"]))


def test_what_a_form_copies_seals_too(visit: Visit, device: Path, identity: Identity) -> None:
    """A command that lost the recipients would send the file as it is."""
    page = visit(f"/new/trigger?client=till-1&path={device}")
    page.get_by_text("Seal for recipients").click()
    page.get_by_label("Recipients", exact=True).fill(identity.recipient)
    page.get_by_label("Recipients", exact=True).press("Enter")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Priority").fill("7")
    page.get_by_label("Give up after").fill("24h")
    page.locator("header.page details.copy summary").click()
    copied = page.locator(".copyable").filter(has_text="backhaul command").locator("code").inner_text()
    options = ["--deadline", "24h", "--option", "priority=7", "--encrypt-to", identity.recipient]
    assert shlex.split(copied) == ["backhaul", "trigger", *options, "till-1", str(device)]


def test_a_job_seals_for_the_same_recipients_as_the_job_that_it_is_made_from(
    visit: Visit, site: Fleet, device: Path, identity: Identity
) -> None:
    page = visit(f"/new/job?client=till-1&path={device}")
    page.get_by_label("Job id", exact=True).fill("sealed-1")
    page.get_by_text("Seal for recipients").click()
    page.get_by_label("Recipients", exact=True).fill(identity.recipient)
    page.get_by_label("Recipients", exact=True).press("Enter")
    page.get_by_role("button", name="Dry run").click()
    expect(page.get_by_text("1 client matches")).to_be_visible()
    page.get_by_role("button", name="Create the job").click()
    expect(page.locator("h1")).to_have_text("sealed-1")
    expect(page.get_by_role("region", name="Facts")).to_contain_text("for 1 recipient")
    assert site.get("/jobs/sealed-1")["spec"]["options"]["encrypt_to"] == [identity.recipient]
    page.goto("/#/new/job?from=sealed-1")
    chosen = page.get_by_role("list", name="Recipients: chosen")
    expect(chosen).to_contain_text(identity.recipient)
