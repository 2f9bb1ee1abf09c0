"""The documents are complete: every setting, command, code and event is in them; a test types every block of commands.

Rule: what the code has is compared with what stands in the documents, in both directions where a list is closed.
"""

import ast
import re
from pathlib import Path
from typing import Final

import pytest
from typer.main import get_command

from control_plane.cli.main import build
from control_plane.domain.explanations.table import EXPLANATIONS
from tests.docs.generated import AGENT_SETTINGS, CONTROL_PLANE_SETTINGS, ROOT, SETTINGS
from tests.support.engine_guide import blocks

DOCS: Final = ROOT / "docs"
TYPED: Final = {
    "README.md": "tests/docs/test_readme.py",
    "docs/tutorial.md": "tests/docs/test_readme.py",
    "docs/how-to/one-site.md": "tests/docs/test_readme.py",
    "docs/how-to/without-a-control-plane.md": "tests/docs/test_readme.py",
    "docs/protocol.md": "tests/e2e/signed/test_other_languages.py",
    "docs/how-to/docker.md": "tests/support/engine_guide.py",
    "docs/containers.md": "tests/support/engine_guide.py",
    "docs/how-to/audit.md": "tests/integration/audit/test_commands.py",
    "docs/how-to/back-up.md": "tests/e2e/test_how_to.py",
    "docs/how-to/core-dumps.md": "tests/e2e/test_how_to.py",
    "docs/how-to/daily-report.md": "tests/e2e/test_how_to.py",
    "docs/how-to/enroll-a-device.md": "tests/e2e/signed/test_enrolled_by_code.py",
    "docs/how-to/flash-an-image.md": "tests/e2e/test_how_to_devices.py",
    "docs/how-to/raspberry-pi.md": "tests/e2e/test_how_to_devices.py",
    "docs/how-to/give-rights.md": "tests/e2e/test_how_to.py",
    "docs/how-to/logs-by-a-deadline.md": "tests/e2e/test_how_to.py",
    "docs/how-to/logs-of-a-sick-device.md": "tests/e2e/test_how_to.py",
    "docs/how-to/prove-an-upload.md": "tests/e2e/receipts/test_receipts.py",
    "docs/how-to/rotate-keys.md": "tests/e2e/test_how_to.py",
    "docs/how-to/size-it.md": "tests/e2e/test_how_to.py",
    "docs/how-to/write-your-own-agent.md": "tests/e2e/test_conformance.py",
}
"""Documents with commands (`bash`), and the test that types them."""

NOT_TYPED: Final = {
    "docs/tutorial.md": "installs packages of the system and of Python",
    "docs/containers.md": "needs a public name, or a cluster",
    "docs/how-to/agent-as-a-service.md": "units of the system; tests/packages/test_debian_unit.py uses them",
    "docs/how-to/back-up.md": "stops every control plane; the test starts the copy instead",
    "docs/how-to/behind-a-proxy.md": "settings; the test sets them",
    "docs/how-to/confine-a-device.md": "a unit of the system; tests/security/test_policy.py asks about each rule",
    "docs/how-to/delete-after-upload.md": "a unit of the system; tests/faults/test_after.py asks for both acts",
    "docs/how-to/enroll-a-device.md": "a copy by ssh, and the device's own command, which its test runs",
    "docs/how-to/flash-an-image.md": "the first boot of a card; its test runs it beside doubles",
    "docs/how-to/give-rights.md": "revokes tokens; tests/security/test_tokens.py does so",
    "docs/how-to/install-the-agent.md": "installs packages; tests/packages/test_debian_systems.py does so",
    "docs/how-to/raspberry-pi.md": "installs the package; tests/integration/test_agent_setup.py answers the questions",
    "docs/how-to/object-stores.md": "settings of accounts at other companies",
    "docs/how-to/prove-an-upload.md": "a table of cron; the test verifies all of them",
    "docs/how-to/rotate-keys.md": "a site with passwords; the tutorial's test enrolls a device",
    "docs/how-to/sign-the-fleet.md": "asks for a passphrase; tests/e2e/signed does so with a file",
    "docs/how-to/seal-files.md": "keys of a person; tests/faults/test_sealed.py opens an object with age",
    "docs/how-to/upgrade.md": "replaces an installation",
    "docs/how-to/watch.md": "a Prometheus, and a device in doubt; the doctors and the rules have tests of their own",
    "docs/how-to/the-page.md": "it opens a browser; tests/browser/test_signin.py signs in with such a link",
}
"""Documents with commands (`sh`) that no test types, and why."""

_FENCE: Final = re.compile(r"^```(\w*)\n", re.MULTILINE)
_COMMAND: Final = re.compile(r"(?:^|`|\$\()backhaul ([a-z][a-z-]*(?: [a-z][a-z-]*)?)(?=[\s`)]|$)", re.MULTILINE)
_EVENT: Final = re.compile(r"[a-z_]+\.[a-z_]+")
_NO_EVENTS: Final = {"http.disconnect", "http.request", "backhaul.db"}
"""Texts of such a form in modules that log an event by a name that they were given."""


def documents() -> dict[str, str]:
    """Every document but the records of decisions, by its path."""
    paths = [ROOT / "README.md", *DOCS.rglob("*.md")]
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths if "decisions" not in path.parts}


def test_every_block_of_commands_is_typed_by_a_test_that_names_its_document() -> None:
    found = {name for name, text in documents().items() if blocks(text)}
    assert found == set(TYPED)
    missing = [name for name, test in TYPED.items() if Path(name).name not in (ROOT / test).read_text()]
    assert [name for name in missing if name != "README.md"] == []


def test_commands_that_no_test_types_are_listed_with_the_reason() -> None:
    found = {name for name, text in documents().items() if "```sh\n" in text}
    assert found == set(NOT_TYPED)


def test_every_fence_has_a_known_language() -> None:
    """A block without one, or with a new one, would be neither typed nor listed."""
    known = {"", "bash", "sh", "console", "json", "yaml", "toml", "nginx", "caddy", "mermaid", "text", "csv", "python"}
    found = {language for text in documents().values() for language in _FENCE.findall(text)}
    assert found <= known


def test_every_setting_has_a_meaning() -> None:
    """The tables hold every setting, and no other row."""
    assert len(CONTROL_PLANE_SETTINGS) + len(AGENT_SETTINGS) == len(
        re.findall(r"^\| `[A-Z_0-9]+` \|", SETTINGS.read_text(), re.MULTILINE)
    )


def test_every_command_that_a_document_names_exists() -> None:
    """In code marks and in blocks, `backhaul NOUN VERB` names a command of this version."""
    root = get_command(build())
    named = {(name, line) for name, text in documents().items() for line in _COMMAND.findall(text)}
    wrong = []
    for name, line in named:
        command = root
        for word in line.split():
            children = getattr(command, "commands", {})
            if not children:
                break
            if word not in children:
                wrong.append(f"{name}: backhaul {line}")
                break
            command = children[word]
    assert sorted(wrong) == []
    assert len(named) > 50


def test_every_code_is_in_the_reference_of_reasons() -> None:
    text = (DOCS / "reference/reasons.md").read_text()
    assert sorted(re.findall(r"^### `([\w-]+)`$", text, re.MULTILINE)) == sorted(EXPLANATIONS)


def test_every_event_of_the_log_is_in_its_reference_and_no_other() -> None:
    text = (DOCS / "reference/log-events.md").read_text()
    written = set(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE))
    logged = {name for path in (ROOT / "control_plane").rglob("*.py") for name in events_of(path)}
    assert logged - written == set()
    assert written - logged == set()


def test_an_event_that_is_kept_and_logged_later_is_found(tmp_path: Path) -> None:
    """Not only what stands in the call itself."""
    module = tmp_path / "module.py"
    module.write_text(
        'kept.append(("a.later", {}))\nname = "a.named"\n"not an event.name"\nfor event in kept: log(event, {})'
    )
    assert events_of(module) == {"a.later", "a.named"}
    module.write_text('log("a.plain", {})\nname = "a.file"')
    assert events_of(module) == {"a.plain"}


def events_of(path: Path) -> set[str]:
    """The names of events that a module logs: the text of each call, or any text of it where a call has none."""
    tree = ast.parse(path.read_text())
    logged = [
        node.args[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and node.args
        if re.search(r"(?:^|\W|_)(?:log|metrics)$", ast.unparse(node.func))
    ]
    named = all(isinstance(argument, ast.Constant) for argument in logged)
    texts = (node.value for node in (logged if named else ast.walk(tree)) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and _EVENT.fullmatch(text)} - _NO_EVENTS


@pytest.mark.parametrize("name", ["docs/README.md"])
def test_the_list_of_documents_names_each_of_them(name: str) -> None:
    """Relative links of the list, and those of the lists that it links to."""
    text = documents()[name]
    linked = {str(Path("docs") / link.split("#")[0]) for link in re.findall(r"\]\(([\w/.#-]+)\)", text)}
    rest = set(documents()) - linked - {"README.md", name}
    assert rest == set()
