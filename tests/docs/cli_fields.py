"""The members of REST's answers as the command line lists them: `control_plane/cli/rest/answers/fields.py`.

Rule: derived from the OpenAPI document; `python -m tests.docs.generated` writes the module.
"""

from pathlib import Path
from typing import Any, Final

from control_plane.observability import Metrics
from control_plane.settings import Settings
from tests.support.fake_services import FakeServices, api_over

MODULE: Final = Path(__file__).parents[2] / "control_plane" / "cli" / "rest" / "answers" / "fields.py"

_HEAD: Final = '''"""The members of REST's answers, for `--fields`.

Rule: generated from the OpenAPI document by `python -m tests.docs.generated`; never edited by hand.
"""

from typing import Final

FIELDS: Final[dict[str, tuple[str, ...]]] = {
'''


def openapi() -> dict[str, Any]:
    """The OpenAPI document of a control plane with the defaults."""
    return api_over(FakeServices(), Settings.load({}), Metrics()).openapi()


def module() -> str:
    """The text of the module: the members of each answer, and of the rows that an answer lists."""
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
    for name in sorted(answers | rows):
        members = list(schemas[name].get("properties", ()))
        if len(members) == 1:
            lines += [f'    "{name}": ("{members[0]}",),\n']
        elif members:
            lines += [f'    "{name}": (\n', *(f'        "{member}",\n' for member in members), "    ),\n"]
    return _HEAD + "".join(lines) + "}\n"


def _named(schema: dict[str, Any]) -> list[str]:
    parts = [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return [part["$ref"].rpartition("/")[2] for part in parts if "$ref" in part]


def _items(schema: dict[str, Any]) -> list[str]:
    return _named(schema.get("items", {}))
