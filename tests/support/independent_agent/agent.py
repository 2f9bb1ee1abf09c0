"""Commands, and the course of an upload.

Rule: every command is answered as section 3 has it; the latest response of an upload is repeated until it is answered.
"""

import glob
import json
import os
import random
import re
import stat
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.independent_agent.sending import Sender
from tests.support.independent_agent.types import (
    ENDS,
    FIELDS,
    ID,
    REJECTED,
    WINDOW,
    Json,
    Refused,
    digest_of,
    fields,
    spelled,
    unspelled,
)
from tests.support.independent_agent.upload import Upload


class Agent(Sender):
    """The whole agent."""

    # --- commands ---

    def command(self, data: bytes) -> None:
        """Carry a command out, or answer why not."""
        try:
            command = json.loads(data)
            message_id = command["message_id"]
            known = isinstance(command, dict) and isinstance(message_id, str) and ID.match(message_id)
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if not known:
            return
        payload = command.get("payload", {})
        try:
            self.check(command)
            self.carry_out(command, command["action"], payload)
        except Refused as refused:
            self.refuse(command, refused)

    def refuse(self, command: Json, refused: Refused) -> None:
        """An answer outside of the count."""
        payload = command.get("payload")
        about: Json = {}
        if isinstance(payload, dict):
            inside = payload.get("upload_config")
            named = {**payload, **(inside if isinstance(inside, dict) else {})}
            if isinstance(named.get("upload_id"), str):
                about["upload_id"] = named["upload_id"]
            if type(named.get("attempt")) is int:
                about["attempt"] = named["attempt"]
        action = command.get("action")
        self.answer(command, "download_file" if about else str(action), about, refused)

    def answer(self, command: Json, action: str, payload: Json, refused: Refused | None = None) -> None:
        """The answer to a command that begins no upload."""
        status = "success" if refused is None else "rejected" if refused.code in REJECTED else "error"
        response = {"message_id": command["message_id"], "action": action, "status": status, "payload": payload}
        if refused is not None:
            response |= {"error": refused.code, "message": str(refused)}
        self.respond(response)

    def check(self, command: Json) -> None:
        """The JSON types of a command."""
        if command.get("action") not in FIELDS:
            raise Refused("unsupported" if isinstance(command.get("action"), str) else "bad_request")
        if command.get("install_id") not in {None, self.install_id}:
            raise Refused("stale_epoch")
        fields(command.get("payload", {}), FIELDS[command["action"]])

    def carry_out(self, command: Json, action: str, payload: Json) -> None:
        """One of the known actions."""
        config = payload.get("upload_config") or {}
        upload_id = config.get("upload_id") or payload.get("upload_id")
        attempt = config.get("attempt") or payload.get("attempt") or 1
        match action:
            case "download_file":
                self.download(command, payload, config, upload_id or command["message_id"], attempt)
            case "grant_parts":
                self.grant(command, payload, config, upload_id, attempt)
            case "cancel_upload":
                self.cancel(command, upload_id, attempt)
            case "close_upload":
                self.close(upload_id, attempt, payload.get("outcome", "unknown"))
            case "list_files":
                self.answer(command, action, self.listing(payload))
            case "health_check":
                active = len(self.uploads)
                self.answer(command, action, {"version": "independent", "active_uploads": active})

    def download(self, command: Json, payload: Json, config: Json, upload_id: str, attempt: int) -> None:
        """Begin an upload, or answer again."""
        known = self.uploads.get(upload_id)
        if known is not None and attempt < known.attempt:
            return
        if known is not None and attempt == known.attempt:
            self.acknowledged(known, payload.get("acknowledges", 0))
            if known.ended == "error" and payload.get("acknowledges", 0) >= known.sequence:
                known.ended, known.unanswered, known.counts = None, False, {}
                self.request(known)
            elif known.latest is not None:
                self.publish_latest(known)
            return
        if known is None and self.buried(command, upload_id, attempt):
            return
        if config.get("presigned_urls"):
            raise Refused("unsupported", "this agent offers first")
        path = payload.get("file_path") or self.default
        if path is None:
            raise Refused("bad_request", "no file_path, and no default file")
        upload = Upload(command["message_id"], payload, config, path)
        self.uploads[upload_id] = upload
        try:
            upload.stat = self.examine(path)
        except Refused as refused:
            self.end(upload, refused)
            return
        self.request(upload)

    def examine(self, path: str) -> os.stat_result:
        """The file's stat, if it may be read and is one."""
        real = os.path.realpath(unspelled(path))
        if not self.allowed(path, os.fsdecode(real)):
            raise Refused("path_not_allowed", f"{path} is outside of {self.roots}")
        try:
            found = os.stat(real)
        except OSError as error:
            raise Refused("file_not_found", str(error)) from error
        if not stat.S_ISREG(found.st_mode):
            raise Refused("not_a_file")
        return found

    def allowed(self, path: str, real: str) -> bool:
        """Whether a path lies below a root once links are followed."""
        inside = any(real == root or real.startswith(f"{root}/") for root in self.roots)
        return path.startswith("/") and (inside or path == self.default)

    def grant(self, command: Json, payload: Json, config: Json, upload_id: str | None, attempt: int) -> None:
        """Take URLs, completed parts or a wait."""
        upload = self.uploads.get(upload_id or "")
        if upload is None or attempt > upload.attempt:
            if upload_id is None:
                raise Refused("bad_request")
            if not self.buried(command, upload_id, attempt):
                raise Refused("upload_gone")
            return
        if attempt < upload.attempt:
            return
        acknowledges = payload.get("acknowledges", 0)
        self.acknowledged(upload, acknowledges)
        if upload.ended is not None:
            self.publish_latest(upload)
            return
        urls = config.get("presigned_urls") or payload.get("presigned_urls") or []
        try:
            self.check_urls(upload, urls, config.get("chunk_size"))
        except Refused as refused:
            self.end(upload, refused)
            return
        for first, last in payload.get("completed_parts", []):
            upload.stored |= set(range(first, last + 1))
        life = config.get("expires_in") or payload.get("expires_in") or 1e9
        if acknowledges >= upload.sequence:
            upload.unanswered = False
        if wait := payload.get("wait"):
            upload.waits_until, upload.reason = time.monotonic() + wait["for_seconds"], wait["reason"]
            return
        if urls:
            upload.waits_until = None
            upload.rate = payload.get("max_bytes_per_second") or upload.own_rate
        now = time.monotonic()
        for url in urls:
            if url["part_number"] not in upload.stored:
                upload.grants[url["part_number"]] = (url, now + life, life)
        self.proceed(upload)

    def check_urls(self, upload: Upload, urls: list[Json], chunk: int | None) -> None:
        """The plan, the headers and the hosts of a grant."""
        if chunk not in {None, upload.chunk, upload.part_size()}:
            raise Refused("bad_request", "another chunk_size")
        for url in urls:
            if url["part_number"] > upload.total():
                raise Refused("bad_request", "a part beyond the plan")
            for name, value in url.get("headers", {}).items():
                good = name in {"content-md5", "if-none-match"} or name.startswith("x-amz-")
                if not good or not re.fullmatch(r"[\x21-\x7e]+", value):
                    raise Refused("bad_request", f"the header {name}")
            if not self.host_allowed(url["url"]):
                raise Refused("host_not_allowed", "add its origin to UPLOAD_HOSTS")

    def host_allowed(self, url: str) -> bool:
        """Whether UPLOAD_HOSTS has the origin of a URL."""
        parts = urlsplit(url)
        return any(host == f"{parts.scheme}://{parts.netloc}" for host in self.hosts)

    def cancel(self, command: Json, upload_id: str | None, attempt: int) -> None:
        """Stop, or answer the end again."""
        upload = self.uploads.get(upload_id or "")
        if upload is not None and upload.ended is not None:
            self.publish_latest(upload)
        elif upload is not None:
            self.end(upload, None, "cancelled")
        elif upload_id is not None and not self.buried(command, upload_id, attempt):
            payload = {"upload_id": upload_id, "attempt": attempt}
            unknown = {"message_id": command["message_id"], "action": "download_file", "status": "cancelled"}
            self.respond({**unknown, "payload": payload})

    def close(self, upload_id: str | None, attempt: int, outcome: str) -> None:
        """Forget the upload, keep its outcome."""
        upload = self.uploads.get(upload_id or "")
        if upload_id is not None and (upload is None or attempt >= upload.attempt):
            self.uploads.pop(upload_id, None)
            self.tombstones.setdefault(upload_id, outcome)

    def buried(self, command: Json, upload_id: str, attempt: int) -> bool:
        """Answer from the tombstone, if there is one."""
        if upload_id not in self.tombstones:
            return False
        status, error = ENDS.get(self.tombstones[upload_id], ("error", "upload_gone"))
        payload = {"upload_id": upload_id, "attempt": attempt}
        response: Json = {"message_id": command["message_id"], "action": "download_file", "status": status}
        self.respond({**response, "payload": payload, **({"error": error} if error else {})})
        return True

    def listing(self, request: Json) -> Json:
        """A page of files."""
        pattern, limit = request["pattern"], request.get("limit", 100)
        found = []
        for path in sorted(glob.glob(pattern, recursive=True)):
            with suppress(Refused):
                found.append((path, self.examine(path)))
        after = [one for one in found if one[0] > request.get("cursor", "")]
        entries = []
        for path, seen in after[:limit]:
            entry: Json = {"path": spelled(path), "size": seen.st_size, "mtime_ns": seen.st_mtime_ns}
            if request.get("digest", "none") != "none":
                entry["digest"] = digest_of(request["digest"], Path(path).read_bytes())
            entries.append(entry)
        return {"files": entries, **({"cursor": entries[-1]["path"]} if len(after) > limit else {})}

    # --- an upload ---

    def acknowledged(self, upload: Upload, sequence: int) -> None:
        """Forget the ETags that the owner has committed."""
        if upload.ended is not None and sequence >= upload.sequence:
            upload.unanswered = False
        upload.etags = {number: kept for number, kept in upload.etags.items() if kept[0] > sequence}

    def window(self, upload: Upload) -> list[int]:
        """The next parts of 64 MiB, at most 100."""
        numbers: list[int] = []
        size = 0
        for number in range(1, upload.total() + 1):
            if number in upload.stored or number in upload.grants:
                continue
            size += upload.extent(number)[1]
            if numbers and (size > WINDOW or len(numbers) == 100):
                break
            numbers.append(number)
        return numbers

    def request(self, upload: Upload) -> None:
        """Request the next parts, or end."""
        numbers = self.window(upload)
        if not numbers:
            if not upload.grants and len(upload.stored) >= upload.total():
                self.succeed(upload)
            return
        wanted = []
        for number in numbers:
            if number not in upload.digests:
                upload.digests[number] = digest_of(upload.digest, self.read(upload, number))
            part: Json = {"part_number": number, "size": upload.extent(number)[1]}
            if upload.digests[number] is not None:
                part["digest"] = upload.digests[number]
            wanted.append(part)
        self.report(upload, "in_progress", {"wanted_parts": wanted})

    def succeed(self, upload: Upload) -> None:
        """Every part is stored; the file has to be what it was."""
        try:
            same = self.unchanged(upload)
        except Refused:
            same = False
        self.end(upload, None if same else Refused("source_changed"), "success")

    def unchanged(self, upload: Upload) -> bool:
        """Whether size and times are those of the offer."""
        seen, before = self.examine(upload.path), upload.stat
        return before is not None and all(
            getattr(seen, name) == getattr(before, name) for name in ("st_size", "st_mtime_ns", "st_ino", "st_dev")
        )

    def report(self, upload: Upload, status: str, more: Json, refused: Refused | None = None) -> None:
        """The next response of the upload."""
        upload.sequence += 1
        for number, (sequence, etag) in list(upload.etags.items()):
            if sequence > upload.sequence:
                upload.etags[number] = (upload.sequence, etag)
        payload: Json = {
            "upload_id": upload.upload_id,
            "attempt": upload.attempt,
            "owner": upload.owner,
            "file_path": upload.path,
            "etags": {str(number): etag for number, (_, etag) in upload.etags.items()},
            **({"file_size": upload.size()} if upload.stat is not None else {}),
            **more,
        }
        head = {"message_id": upload.message_id, "action": "download_file", "status": status}
        upload.latest = {**head, "sequence": upload.sequence, "payload": payload}
        if refused is not None:
            upload.latest |= {"error": refused.code, "message": str(refused)}
        upload.unanswered, upload.repeats = True, 0
        self.publish_latest(upload)

    def publish_latest(self, upload: Upload) -> None:
        """The latest response, for the first time or again."""
        pause = min(120.0, 10.0 * 2**upload.repeats) * random.uniform(0.6, 1.4)
        upload.repeat_at, upload.repeats = time.monotonic() + pause, upload.repeats + 1
        if upload.latest is not None:
            self.respond(upload.latest)

    def end(self, upload: Upload, refused: Refused | None, status: str = "success") -> None:
        """The upload is over for the agent."""
        upload.grants.clear()
        code = refused.code if refused is not None else None
        upload.ended = status if refused is None else "rejected" if code in REJECTED else "error"
        self.report(upload, upload.ended, {}, refused)

    def proceed(self, upload: Upload) -> None:
        """Send what can be sent, and request what is missing."""
        now = time.monotonic()
        if upload.ended is not None:
            return
        for number, (url, expires, life) in list(upload.grants.items()):
            if number in upload.sending or upload.retry_at.get(number, 0) > now:
                continue
            if expires - now < self.life_needed(life):
                del upload.grants[number]
                continue
            upload.sending.add(number)
            self.pool.submit(self.put, upload, number, url)
        waiting = upload.waits_until is not None and now < upload.waits_until
        if not upload.unanswered and not waiting and not upload.grants:
            upload.waits_until = None
            self.request(upload)

    def life_needed(self, life: float) -> float:
        """Seconds that a URL must have left."""
        return min(10.0, 0.8 * life)

    # --- time ---

    def tick(self) -> None:
        """What is due."""
        self.call_due()
        now = time.monotonic()
        for upload in list(self.uploads.values()):
            if upload.unanswered and now >= upload.repeat_at:
                self.publish_latest(upload)
            self.proceed(upload)
        self.report_status()
