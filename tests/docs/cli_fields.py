"""The members of REST's answers as the command line lists them: `control_plane/cli/rest/answers/fields.py`.

Rule: derived from the OpenAPI document; `python -m tests.docs.generated` writes the module.
"""

import re
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from control_plane.observability import Metrics
from control_plane.settings import Settings
from tests.support.fake_services import FakeServices, api_over

MODULE: Final = Path(__file__).parents[2] / "control_plane" / "cli" / "rest" / "answers" / "fields.py"

SHAPES: Final = MODULE.with_name("shapes.py")

_HEAD: Final = '''"""The members of REST's answers, for `--fields`.

Rule: generated from the OpenAPI document by `python -m tests.docs.generated`; never edited by hand.
"""

from typing import Final

_MEMBERS: Final = {
'''


_TAIL: Final = """}
FIELDS: Final[dict[str, tuple[str, ...]]] = {name: tuple(members.split()) for name, members in _MEMBERS.items()}
"""
_ROOM: Final = 100
_LINE: Final = 109
"""Characters of a line beside quotes and indentation."""


def openapi() -> dict[str, Any]:
    """The OpenAPI document of a control plane with the defaults."""
    return api_over(FakeServices(), Settings.load({}), Metrics()).openapi()


def module() -> str:
    """The text of the module: the members of each row that a command prints in columns."""
    document = openapi()
    schemas = document["components"]["schemas"]
    answers = {
        name
        for calls in document["paths"].values()
        for call in calls.values()
        for status, answer in call["responses"].items()
        if status.startswith("2")
        for content in answer.get("content", {}).values()
        for name in _named(content.get("schema", {}))
    }
    rows = {
        name for answer in answers for one in schemas[answer].get("properties", {}).values() for name in _items(one)
    }
    lines = []
    printed = set(re.findall(r'FIELDS\["(\w+)"\]', SHAPES.read_text()))
    for name in sorted((answers | rows) & printed):
        members = " ".join(schemas[name].get("properties", ()))
        if not members:
            continue
        if len(members) + len(name) <= _LINE:
            lines += [f'    "{name}": "{members}",\n']
        else:
            pieces = wrap(members, _ROOM, break_on_hyphens=False)
            # All but the last end with the space between two members.
            shown = [f'        "{piece} "\n' for piece in pieces[:-1]] + [f'        "{pieces[-1]}"\n']
            lines += [f'    "{name}": (\n', *shown, "    ),\n"]
    return _HEAD + "".join(lines) + _TAIL


def _named(schema: dict[str, Any]) -> list[str]:
    parts = [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return [part["$ref"].rpartition("/")[2] for part in parts if "$ref" in part]


def _items(schema: dict[str, Any]) -> list[str]:
    return _named(schema.get("items", {}))
