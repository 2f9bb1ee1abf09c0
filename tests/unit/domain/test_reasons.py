"""Every code that the program can emit has one row in the table, and the table has no other row.

Rule: the code is searched as text and as a syntax tree, so that a code that nothing uses, or that is written as a plain
string, is found.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from typer.main import get_command

from control_plane.api.problems import PROBLEMS
from control_plane.cli.main import build
from control_plane.domain.explanations.model import Explanation
from control_plane.domain.explanations.table import CHAPTERS, EXPLANATIONS
from control_plane.domain.reasons import ProblemCode, ReasonCode
from schemas.values import ErrorCode

# They read every file of the project.
pytestmark = pytest.mark.timeout(180)

ROOT: Final = Path(__file__).parents[3]
SOURCES: Final = sorted((ROOT / "control_plane").rglob("*.py"))
_COMMAND: Final = re.compile(r"`backhaul ([a-z][a-z -]*)")
_PLACES: Final = re.compile(r"^[A-Z`].*[^.]$", re.DOTALL)


def trees() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the control plane but the lists and the table themselves."""
    for path in SOURCES:
        if path.name != "reasons.py" and "explanations" not in path.parts:
            yield path, ast.parse(path.read_text())


def members_used(name: str) -> set[str]:
    """The members of the class `name` that the code uses."""
    return {
        node.attr
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    }


def test_the_table_has_every_code_and_no_other() -> None:
    assert set(EXPLANATIONS) == {*map(str, ReasonCode), *map(str, ProblemCode), *map(str, ErrorCode)}
    assert len(EXPLANATIONS) == sum(map(len, CHAPTERS.values()))


def test_every_code_of_the_lists_is_given_somewhere() -> None:
    # The framework names these by the phrase of their status.
    by_phrase = {"NOT_FOUND", "METHOD_NOT_ALLOWED", "UNSUPPORTED_MEDIA_TYPE"}
    assert {one.name for one in ReasonCode} - members_used("ReasonCode") == set()
    assert {one.name for one in ProblemCode} - members_used("ProblemCode") == by_phrase


def test_no_reason_is_given_with_a_code_of_no_list() -> None:
    """`Reason("…")` with a plain string would escape the lists."""
    plain = [
        f"{path.name}:{node.lineno}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"Reason", "Problem"}
        for argument in [*node.args[:2], *(one.value for one in node.keywords if one.arg == "code")]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        if argument.value in EXPLANATIONS or re.fullmatch(r"[a-z]+[_-][a-z_-]+", argument.value)
    ]
    codes = [
        f"{path.name}:{node.value.lineno}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "reason_code" and isinstance(node.value, ast.Constant)
        if node.value.value is not None
    ]
    assert plain + codes == []


def test_every_problem_has_a_code_of_the_list() -> None:
    assert {type(row.code) for row in PROBLEMS.values()} == {ProblemCode}


def test_no_logic_compares_the_sentence_of_a_reason() -> None:
    """Neither `reason.text == …` nor `"…" in reason.text`; nor the same of an upload's message."""
    compared = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Attribute) and side.attr in {"text", "message"}
        if re.search(r"reason|failure|problem|upload|last_error", ast.unparse(side.value))
    ]
    assert compared == []


@pytest.mark.parametrize("code", EXPLANATIONS)
def test_every_row_is_made_of_sentences_and_names_its_places(code: str) -> None:
    row: Explanation = EXPLANATIONS[code]
    assert [text for text in (row.meaning, row.remedy, row.end) if not _PLACES.match(text)] == []
    assert row.places


def test_every_command_that_a_remedy_names_exists() -> None:
    root = get_command(build())
    named = {match for row in EXPLANATIONS.values() for match in _COMMAND.findall(f"{row.remedy} {row.end}")}
    wrong = []
    for words in (text.split() for text in named):
        command = root
        for word in words:
            children = getattr(command, "commands", {})
            if children and word not in children:
                wrong.append(" ".join(words))
                break
            command = children.get(word, command)
    assert wrong == []
    assert len(named) > 10
