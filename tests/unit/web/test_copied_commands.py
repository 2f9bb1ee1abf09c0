"""The command lines that the page gives to be copied: the command line takes each of them as it is meant.

Rule: the calls are read from the page's files as text, and parsed by the real command line. What a browser makes of
such a call is tested in `tests/browser/test_shell.py`.
"""

import functools
import re
import shlex
from typing import Any, Final

from typer.main import get_command
from typer.testing import CliRunner

from control_plane.cli.commands import build
from control_plane.web import STATIC
from tests.unit.web.test_static import OWN

CALL: Final = re.compile(
    r"""backhaul\("([a-z ]+)", (\{[^}]*\}|[A-Za-z.]+\(.*?\)+)((?:, \.\.\.\[.*?\]\.filter\(Boolean\)|, [^,()]+)*)\)"""
)
OPTION: Final = re.compile(r"""["'](--?[a-z-]+)["']""")
WHOLE: Final = re.compile(r"""(?<!label=)["`>](backhaul [a-z][^"`<$]*)["`<]""")
HERE: Final = STATIC / "parts" / "copy.js"
ELSEWHERE: Final = {path.relative_to(STATIC).as_posix(): path.read_text() for path in OWN if path != HERE}


@functools.cache
def line() -> Any:  # noqa: ANN401 - typer's own click
    """The whole command line; it takes long to build."""
    return get_command(build())


def parsed(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What the parser of a command found in a typed line, by parameter, and the words that it does not know."""
    command = line()
    context = command.make_context("backhaul", [], resilient_parsing=True)
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, words)
        context = type(context)(command, parent=context, info_name=name)
    values, rest, _ = command.make_parser(context).parse_args(list(words))
    return values, rest


def calls() -> list[tuple[str, list[str], int]]:
    """The verbs, the options and the number of words of each command with values that the page makes."""
    found = []
    for text in ELSEWHERE.values():
        others = re.sub(r'backhaul\("[a-z ]+", \{[^}]*\}', "", text)
        for verbs, options, about in CALL.findall(text):
            # A call may make its options elsewhere in its file.
            names = OPTION.findall(options if options.startswith("{") else others)
            found.append((verbs, names, 2 if "[" in about else about.count(", ")))
    return found


def test_every_call_is_found() -> None:
    assert sum(text.count("backhaul(") for text in ELSEWHERE.values()) == len(calls())
    assert ("verify", ["--client"], 1) in calls()
    assert ("job pull", [], 2) in calls()
    assert ("trigger", ["--after", "--deadline", "--option", "--encrypt-to"], 2) in calls()
    assert {"audit list", "upload show"} <= {verbs for verbs, _, _ in calls()}


def test_the_command_line_takes_an_id_that_begins_with_a_hyphen_for_an_id() -> None:
    """As `backhaul` of parts/copy.js writes it: the options, and after `--` what the command is about."""
    alone = {"--folders"}
    for verbs, options, about in calls():
        given = [word for name in options for word in ([name] if name in alone else [name, "-value"])]
        ids = [f"-x{number}" for number in range(about)]
        values, rest = parsed([*verbs.split(), *given, *(["--", *ids] if ids else [])])
        assert rest == [], verbs
        assert [one for one in ids if one in str(list(values.values()))] == ids, verbs
        assert str(values).count("-value") == len([name for name in options if name not in alone]), verbs


def test_an_id_without_the_two_hyphens_is_taken_for_an_option() -> None:
    """Why they are there."""
    bare = CliRunner().invoke(build(), ["upload", "show", "-x"])
    assert (bare.exit_code, "No such option" in bare.stderr) == (2, True), bare.stderr
    ended = CliRunner().invoke(build(), ["--server", "http://127.0.0.1:9", "upload", "show", "--", "-x"])
    assert (ended.exit_code, "127.0.0.1:9" in ended.stderr) == (3, True), ended.stderr


def test_every_command_without_a_value_is_one_that_the_command_line_has() -> None:
    found = [one for text in ELSEWHERE.values() for one in WHOLE.findall(text)]
    assert len(found) > 10
    for words in found:
        assert parsed(shlex.split(words)[1:])[1] == [], words


def test_no_command_with_a_value_is_made_by_hand() -> None:
    """A link or a device may have named it, and it ends in a shell: `parts/copy.js` quotes it, once for all."""
    by_hand = re.compile(r"""backhaul [a-z][^"`<]*\$\{|["`]backhaul [^"`]*["`](?: \+|,[^\n]*\.join)""")
    assert {name: found for name, text in ELSEWHERE.items() if (found := by_hand.findall(text))} == {}
    assert by_hand.search("`backhaul token show ${quoted(id)}`")
    assert by_hand.search("""["backhaul uploads", client && `--client ${client}`].join(" ")""")
    assert by_hand.search('"backhaul uploads " + id')


def test_every_value_in_another_command_to_copy_is_quoted() -> None:
    """Those of curl and age."""
    bare = re.compile(r" --?[a-z]+ \$\{(?!(?:quoted|named)\()[^}]*\}")
    assert {name: found for name, text in ELSEWHERE.items() if (found := bare.findall(text))} == {}
    assert bare.search("`age -o ${name}`")
