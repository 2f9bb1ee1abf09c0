"""`backhaul-agent explain PATH`: whether a file may be uploaded from this device, and which rule decides.

Rule: the agent's own code decides (`Roots`, `open_source`), as the agent's user. 0 it may be read, 1 it may not.
"""

import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from device_agent.bootstrap import after_policy_of, roots_of
from device_agent.command_line.agent_user import become_the_agents_user
from device_agent.command_line.screen import DONE, FAILED, show, wrapped
from device_agent.errors import FileRefused
from device_agent.files.roots import Roots
from device_agent.files.source import open_source
from device_agent.policy.document import FILE_NAME
from device_agent.policy.rules import DEFAULT_DENIES, RefusedByPolicy
from device_agent.settings import ADMINISTRATOR, LoadedSettings
from schemas.file_names import spelled
from schemas.values import ErrorCode

_HOME: Final = ("/home/", "/root/", "/run/user/")
_REMEDIES: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.FILE_NOT_FOUND: "check the spelling; a folder that the agent's user may not enter looks the same",
    ErrorCode.PERMISSION_DENIED: (
        "let the agent's user read it: setfacl -m u:{user}:r {path}, and x on each folder above"
    ),
    ErrorCode.NOT_A_FILE: "name a file; of a folder, the files below it are uploaded by a pattern such as {path}/*",
    ErrorCode.FILE_TOO_LARGE: "split it: no object store of this kind takes it in one object",
    ErrorCode.SOURCE_UNREADABLE: "look at its disk, or its mount",
}


class Explanation(Struct, frozen=True, kw_only=True):
    """What decides about `path`: the setting `rule` allows it, None when no setting does; `code` refuses it.

    `policy` is the rule of the policy that refuses it. `consent` is the class of which a person must allow each upload.

    `link` is the file that the path leads to, where it is another one. `size` is in bytes, None for a refused file.
    `after` are the acts that ALLOW_AFTER and AFTER_PATHS allow for it once it is proven.
    """

    path: str
    allowed: bool
    user: str
    rule: str | None = None
    policy: str | None = None
    consent: str | None = None
    code: ErrorCode | None = None
    text: str | None = None
    remedy: str | None = None
    link: str | None = None
    size: int | None = None
    after: tuple[str, ...] = ()


def run_explain(options: Namespace, loaded: LoadedSettings) -> int:
    """Explain one path."""
    settings = loaded.settings
    user = become_the_agents_user(settings.state_dir)
    roots = roots_of(settings, loaded.own_files, loaded.policy)
    # `..` is taken out as text, as a person means it; the agent itself refuses such a path.
    path = os.path.abspath(options.path)  # noqa: PTH100 (resolve() follows links)
    after = after_policy_of(settings, roots)
    found = explain(path, roots, user)
    if found.allowed and after.covers(found.path):
        found = msgspec.structs.replace(found, after=tuple(sorted(after.allowed)))
    show(msgspec.json.encode(found).decode() if options.json else "\n".join(_lines(found)))
    return DONE if found.allowed else FAILED


def explain(path: str, roots: Roots, user: str) -> Explanation:
    """What the agent decides about an absolute path; `user` is the one that it was tried as."""
    name, real = spelled(path), os.path.realpath(path)
    found = Explanation(path=name, allowed=False, user=user, link=spelled(real) if real != path else None)
    try:
        found = msgspec.structs.replace(found, rule=roots.setting_for(name))
        with open_source(name, roots) as source:
            return msgspec.structs.replace(found, allowed=True, size=source.size, consent=roots.asks_for(name))
    except RefusedByPolicy as refused:
        remedy: str | None = _policy_remedy(refused.rule, roots)
        return msgspec.structs.replace(found, policy=refused.rule, code=refused.code, text=str(refused), remedy=remedy)
    except FileRefused as refused:
        remedy = _remedy(found, refused.code, roots)
        return msgspec.structs.replace(found, code=refused.code, text=str(refused), remedy=remedy)


def _remedy(found: Explanation, code: ErrorCode, roots: Roots) -> str | None:
    if found.path.startswith(_HOME) and code in {ErrorCode.FILE_NOT_FOUND, ErrorCode.PERMISSION_DENIED}:
        return "the unit hides home folders from the agent: see its drop-in home.conf, and the file's permissions"
    if code is not ErrorCode.PATH_NOT_ALLOWED:
        remedy = _REMEDIES.get(code)
        return None if remedy is None else remedy.format(path=found.path, user=found.user)
    # `Path.is_dir` raises below a folder that may not be entered.
    if os.path.isdir(found.path):  # noqa: PTH112
        return _REMEDIES[ErrorCode.NOT_A_FILE].format(path=found.path)
    if found.rule is None:
        return f"allow a folder that holds it: ALLOWED_ROOTS ({Path(found.path).parent}), or a pattern in TYPES"
    if found.link is None:
        return None
    allowed = _allows(roots, found.link)
    return f"request {found.link}" if allowed else f"it leads to {found.link}, which no setting allows"


def _policy_remedy(rule: str, roots: Roots) -> str:
    """What to change where a rule of the policy refuses; the default one changes by a file."""
    where = roots.policy.file or ADMINISTRATOR / FILE_NAME
    pattern = rule.partition(" ")[2].strip("'")
    if rule.startswith("deny ") and pattern in DEFAULT_DENIES and roots.policy.document.default_denies:
        return f"a default: default_denies = false in {where} takes all of them away; then restart the agent"
    return f"change {rule.partition(' ')[0]} in {where}, and restart the agent"


def _allows(roots: Roots, path: str) -> bool:
    try:
        roots.decide(path)
    except FileRefused:
        return False
    return True


def _lines(found: Explanation) -> Iterator[str]:
    verdict = "may be uploaded" if found.allowed else "may not be uploaded"
    yield wrapped(f"{found.path} {verdict}.")
    yield _row("rule", found.rule or "no setting allows it")
    if found.policy is not None:
        yield _row("policy", found.policy)
    if found.text is not None:
        yield _row("refused", f"{found.code}: {found.text}")
    if found.size is not None:
        yield _row("file", f"a regular file of {found.size:,} bytes, through no link below its root")
    if found.allowed:
        yield _row("after", f"{' or '.join(found.after)}, on request" if found.after else "it stays: ALLOW_AFTER")
    if found.consent is not None:
        yield _row("consent", f"each upload waits until a person allows it: class {found.consent}, see requests")
    yield _row("tried as", f"user {found.user}")
    if found.remedy is not None:
        yield _row("", f"-> {found.remedy}")


def _row(name: str, text: str) -> str:
    return wrapped(text, " " * 10, f"{name:<10}")
