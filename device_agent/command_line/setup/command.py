"""The dialogue of `setup`, and its form without a person.

Rule: a wrong answer is shown with its remedy, and may be corrected or kept: the network may come later.
"""

import os
import sys
import tomllib
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from device_agent.command_line.screen import (
    DONE,
    FAILED,
    INTERRUPTED,
    USAGE,
    columns,
    complain,
    printable,
    show,
    wrapped,
)
from device_agent.command_line.setup.questions import QUESTIONS, Question
from device_agent.command_line.setup.terminal import read_line
from device_agent.command_line.setup.toml_file import GROUP, write_settings
from device_agent.command_line.status import has_unit
from device_agent.diagnosis.doctor import look_at_put
from device_agent.diagnosis.findings import lines_of
from device_agent.enrolment.bundle import BUNDLE_FILE
from device_agent.errors import SettingsError
from device_agent.settings import CONFIG_DIRS, NAMES, Settings, is_there
from device_agent.settings.loading import parsed, settings_of
from device_agent.settings.sources import Given, read_sources
from device_agent.state.atomic_file import replace_file

FILE: Final = "50-setup.toml"
_STAND_IN: Final = "device"
"""In place of a CLIENT_ID that is not known yet, so that another setting can be checked."""

_INTRODUCTION: Final = (
    "This asks what the agent needs, checks each answer, and writes {file}. Enter takes the value in brackets. "
    "Ctrl-C leaves, and nothing is changed."
)


class _Left(Exception):
    """The person leaves, or an answer without a person is wrong."""


def run_setup(options: Namespace, folders: Sequence[Path]) -> int:
    """Read the answers, check and write them; 0 written, 1 left or wrong, 2 wrong usage, 130 Ctrl-C."""
    file = (options.config_dir[-1] if options.config_dir else CONFIG_DIRS[-1]) / FILE
    if options.answers is None and not sys.stdin.isatty():
        complain("setup: this is no terminal; give the answers in a TOML file: setup --answers FILE")
        return USAGE
    if not _writable(file.parent):
        complain(f"setup: {file.parent} may not be written: try sudo backhaul-agent setup")
        return USAGE
    try:
        existing = [folder for folder in folders if is_there(folder)]
        environ = os.environ if options.bundle is None else {**os.environ, "BUNDLE_FILE": str(options.bundle)}
        given = read_sources(environ, options.env_file, existing).given
        answers = None if options.answers is None else _read_answers(options.answers)
    except SettingsError as error:
        complain(f"setup: {error}")
        return USAGE
    try:
        values = _Setup(file, given, answers, options).values()
        if options.bundle is not None:
            values.update(_install(options.bundle, file.parent if options.config_dir else None))
        write_settings(file, values)
    except (KeyboardInterrupt, EOFError):
        show("\n" + wrapped("Left. Nothing was written."))
        return INTERRUPTED
    except _Left as left:
        show(wrapped(f"{left} Nothing was written."))
        return FAILED
    except (OSError, ValueError) as error:
        complain(f"setup: {file} cannot be written: {error}")
        return FAILED
    show("\n".join(["", wrapped(f"Written: {file}"), *_next_steps(values, options)]))
    return DONE


class _Setup:
    """One run. `given` is set already; `answers` stand in for the person, None with one."""

    def __init__(
        self, file: Path, given: Mapping[str, Given], answers: Mapping[str, Any] | None, options: Namespace
    ) -> None:
        self._file = file
        self._given = dict(given)
        self._answers = answers
        self._options = options
        self._kept: set[str] = set()
        """Settings that stay although their check failed."""

    def values(self) -> dict[str, Any]:
        """The content of the file, by keys of TOML; `_Left`."""
        if self._answers is None:
            show(wrapped(_INTRODUCTION.format(file=self._file)))
        for question in QUESTIONS:
            self._settle(question)
        if self._answers is not None:
            asked = {question.name for question in QUESTIONS}
            for name, value in self._answers.items():
                if name not in asked:
                    self._given[name] = Given(value, self._file, toml=True)
            settings_of(self._given, os.environ)
        self._try_a_put()
        mine = {name: one.value for name, one in self._given.items() if one.file == self._file}
        return {name.lower(): mine[name] for name in NAMES if name in mine}

    def _settle(self, question: Question) -> None:
        """Find a value for one setting, and check it until it is right or kept."""
        known = self._given.get(question.name)
        elsewhere = known is not None and known.file != self._file
        again = self._options.all or (self._answers is not None and question.name in self._answers)
        fresh = known is None or (again and not elsewhere)
        if known is not None and elsewhere:
            place = "the environment" if known.file is None else known.file
            show("\n" + wrapped(f"{question.name} is set in {place}: it stays."))
        while True:
            if fresh and not self._take(question, self._ask(question)):
                continue
            skipped = question.name == "MQTT_PASSWORD" and "MQTT_URL" in self._kept
            findings = [] if skipped else list(question.check(self._settings()))
            if findings:
                show("\n".join(lines_of(findings, columns())))
            if all(one.fine for one in findings):
                return
            if self._keeps(elsewhere=elsewhere):
                self._kept.add(question.name)
                return
            fresh = True

    def _ask(self, question: Question) -> str | Sequence[str]:
        """The answer; that of the file where there is one."""
        if self._answers is not None:
            answer = self._answers.get(question.name, question.default() or None)
            if answer is None and not question.optional:
                text = f"{question.name.lower()} is missing in {self._options.answers}."
                raise _Left(text)
            return answer if answer is not None else ""
        known = self._given.get(question.name)
        default = question.default() if known is None else _as_text(known.value)
        show("\n" + wrapped(question.text))
        shown = "keep the one that is set" if question.secret and default else default
        prompt = f"{question.name}{f' [{printable(shown)}]' if shown else ''}: "
        return read_line(prompt, hidden=question.secret) or default

    def _take(self, question: Question, answer: str | Sequence[str]) -> bool:
        """Take over an answer; False for one that is no value of this setting, which was shown."""
        before = self._given.pop(question.name, None)
        if answer == "":
            if question.optional:
                return True
            show(wrapped("It is needed."))
            return False
        value = parsed(question.name, answer) if isinstance(answer, str) else answer
        self._given[question.name] = Given(value, self._file, toml=True)
        try:
            self._settings()
        except SettingsError as error:
            self._given.pop(question.name)
            if before is not None:
                self._given[question.name] = before
            if self._answers is not None:
                text = f"{error}."
                raise _Left(text) from error
            show(wrapped(str(error)))
            return False
        return True

    def _settings(self) -> Settings:
        return settings_of({"CLIENT_ID": Given(_STAND_IN), **self._given}, os.environ)

    def _keeps(self, *, elsewhere: bool = False) -> bool:
        """Whether a value stays although its check failed; `_Left`."""
        if self._answers is not None:
            if self._options.write_anyway:
                return True
            text = "A check failed (--write-anyway writes all the same)."
            raise _Left(text)
        choices = "[k]eep it, [l]eave" if elsewhere else "[c]orrect it, [k]eep it, [l]eave"
        while True:
            match read_line(f"{choices} [{'k' if elsewhere else 'c'}]: ").lower()[:1]:
                case "l":
                    text = "Left."
                    raise _Left(text)
                case "k":
                    return True
                case "":
                    return elsewhere
                case "c" if not elsewhere:
                    return False

    def _try_a_put(self) -> None:
        """PUT one byte, if the person has a URL."""
        url = self._options.put
        if url is None and self._answers is None:
            text = "A presigned URL for a PUT, to try the object store with one byte. It is not kept. Enter for none."
            show("\n" + wrapped(text))
            url = read_line("URL: ")
        while url:
            finding = look_at_put(self._settings(), url)
            show("\n".join(lines_of([finding], columns())))
            if finding.fine or self._keeps():
                return
            url = read_line("URL: ")


def _install(bundle: Path, folder: Path | None) -> dict[str, Any]:
    """Copy the bundle to where the agent looks for it, or into `folder`: then its setting; `OSError`."""
    place = BUNDLE_FILE if folder is None else folder / BUNDLE_FILE.name
    if place.absolute() != bundle.absolute():
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, [bundle.read_bytes()])
    return {} if folder is None else {"bundle_file": str(place.absolute())}


def _read_answers(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        text = f"{path}: {reason}"
        raise SettingsError(text) from error
    wrong = [key for key in values if key.upper() not in NAMES or key != key.lower()]
    if wrong:
        text = f"{path}: {wrong[0]} is not a setting"
        raise SettingsError(text)
    return {key.upper(): value for key, value in values.items()}


def _next_steps(values: Mapping[str, Any], options: Namespace) -> Iterable[str]:
    if has_unit():
        yield wrapped(
            f"Let the agent read the files: setfacl -R -m u:{GROUP}:rX {_as_text(values.get('allowed_roots', ()), ' ')}"
        )
        yield wrapped("Then type: systemctl restart backhaul-agent")
        yield wrapped("And see: backhaul-agent status")
        return
    more = "".join(f" --config-dir {folder}" for folder in options.config_dir or ())
    yield wrapped(f"Now type: backhaul-agent{more}")


def _as_text(value: Any, between: str = ",") -> str:  # noqa: ANN401 (as TOML has it)
    return value if isinstance(value, str) else between.join(value)


def _writable(folder: Path) -> bool:
    # `Path.exists` raises for a folder that may not be looked at.
    while not os.path.exists(folder) and folder != folder.parent:  # noqa: PTH110
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)
