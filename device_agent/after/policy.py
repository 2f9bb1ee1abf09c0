"""What the device allows to be done with a file after its upload: `ALLOW_AFTER` and `AFTER_PATHS`.

Rule: pure, and default-deny. A command that requests more is refused before anything of the file is read. The settings
of this start count: what an earlier start allowed, and is not done yet, is allowed anew or not done.
"""

from collections.abc import Sequence

from device_agent.files.roots import beneath
from schemas.errors import SchemaError
from schemas.globs import Globs, components_of
from schemas.messages import DELETE, KEEP, MOVE, DownloadFile
from schemas.values import DigestName


class AfterPolicy:
    """Allows the acts `allowed` for files that match one of `paths`, or lie below one of `roots` if there are none.

    `roots` and `paths` are spelled as on the wire; a folder that files are moved into lies below a root, too.
    """

    def __init__(self, allowed: Sequence[str] = (), paths: Sequence[str] = (), roots: Sequence[str] = ()) -> None:
        self.allowed = frozenset(allowed)
        self._paths = Globs(paths) if paths else None
        self._roots = tuple(roots)

    def refusal(self, payload: DownloadFile, path: str) -> str | None:
        """Why this command is refused for its `after`; None when that is allowed."""
        if payload.after == KEEP:
            return None
        config, act = payload.upload_config, act_of(payload.after)
        if (forbidden := self.forbids(payload.after, path)) is not None:
            return forbidden
        if payload.pregranted or (config is not None and config.digest is DigestName.NONE):
            return f"to {act} a file, each part needs a digest that the file can be compared with"
        if payload.options.compression != "none":
            return f"to {act} a file, it is sent as it is: a compressed copy cannot be compared with it"
        return None

    def forbids(self, asked: str, path: str) -> str | None:
        """Why the settings do not allow `delete` or `move:FOLDER` for this file; None when they do."""
        act = act_of(asked)
        if act not in self.allowed:
            allowed = ", ".join(sorted(self.allowed)) or "nothing"
            return f"ALLOW_AFTER of this device allows {allowed}, not {act}"
        if not self._covers(path):
            return f"AFTER_PATHS of this device does not allow to {act} {path!r}"
        if asked != DELETE and not self._takes(asked.removeprefix(MOVE)):
            return f"{asked.removeprefix(MOVE)!r} lies outside ALLOWED_ROOTS of this device"
        return None

    def covers(self, path: str) -> bool:
        """Whether any act is allowed for this file."""
        return bool(self.allowed) and self._covers(path)

    def _covers(self, path: str) -> bool:
        return self._paths.matches(path) if self._paths is not None else self._below_root(path)

    def _takes(self, folder: str) -> bool:
        return self._below_root(folder) or folder.rstrip("/") in self._roots

    def _below_root(self, path: str) -> bool:
        try:
            components = components_of(path)
        except SchemaError:
            return False
        return any(beneath(root, components) for root in self._roots)


def act_of(asked: str) -> str:
    """The value of `ALLOW_AFTER` that allows this `after`: `delete`, or `move` for `move:FOLDER`."""
    return asked.partition(":")[0]
