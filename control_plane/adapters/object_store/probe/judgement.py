"""What a trial means: which digests are enforced, whether uploads can work, and if not, what to change.

Rule: a reason names a setting, a header, a permission or a clock; the code of the object store stands beside it.
"""

from collections.abc import Callable
from typing import Final

from control_plane.adapters.object_store.errors import HINTS
from control_plane.adapters.object_store.probe.puts import PutResult
from control_plane.adapters.object_store.probe.trial import DIGESTS, Seen, Way
from control_plane.adapters.object_store.settings import S3Settings
from control_plane.services.errors import ClocksDiffer, ObjectStoreDown, ObjectStoreForbids, ObjectStoreRefused
from control_plane.services.policy import MAX_SKEW
from schemas.values import DigestName

_FORBIDDEN: Final = frozenset({401, 403})
_BUSY: Final = 500
_CLASS_NAMES: Final = {" ": "space", "&": "other punctuation", "ü": "letters beyond ASCII"}


class Judgement:
    """What one trial means."""

    def __init__(self, seen: Seen, settings: S3Settings) -> None:
        self._seen = seen
        self._settings = settings

    @property
    def enforced_on_objects(self) -> list[DigestName]:
        """The digests of which PutObject rejected a wrong one and stored the right one, token included."""
        seen = self._seen
        return [one for one in DIGESTS if seen.objects[one].works and seen.wrong_objects[one].refused]

    @property
    def enforced_on_parts(self) -> list[DigestName]:
        """The same for UploadPart."""
        seen = self._seen
        return [one for one in DIGESTS if seen.parts[one].works and _refused(seen.wrong_parts[one])]

    @property
    def skew(self) -> float | None:
        """The object store's clock minus this machine's (s)."""
        return next((put.skew for put in self._puts if put.skew is not None), None)

    @property
    def forbidden(self) -> bool:
        """Whether nothing was stored, for want of a permission."""
        codes = {way.answer for way in self._seen.ways}
        return not any(way.taken for way in self._seen.ways) and "AccessDenied" in codes

    def require_usable(self, taken_directly: Callable[[], bool]) -> None:
        """`ObjectStoreRefused` when uploads cannot work, with what to change; `ObjectStoreDown` when it is busy.

        `ClocksDiffer` when that may be the cause. `taken_directly` tries the PUT again past S3_PUBLIC_ENDPOINT.
        """
        seen = self._seen
        without_digest = self._settings.digest == DigestName.NONE
        if set(seen.usable) - (set() if without_digest else {DigestName.NONE}):
            return
        if self.skew is not None and abs(self.skew) > MAX_SKEW:
            # S3 refuses what is signed 15 minutes off its own clock; no other finding of this trial means anything.
            raise ClocksDiffer(self.skew)
        if any(way.info is not None for way in seen.parts.values()) and not seen.usable:
            text = (
                "the object store drops metadata of CreateMultipartUpload: no object of an upload could be recognised"
            )
            raise ObjectStoreRefused(text, code="NoMetadata")
        self._require_answers()
        if seen.usable or seen.parts[DigestName.NONE].taken:
            headers = ", ".join(f"{_header(one)} ({seen.parts[one].answer})" for one in DIGESTS)
            text = f"parts are refused with every digest, and taken without: does a proxy change or strip {headers}?"
            raise ObjectStoreRefused(text, code="NoDigest")
        answers = sorted({way.answer for way in seen.ways if way.answer and not way.works})
        what = f"a presigned PUT like those of devices is refused ({', '.join(answers)})"
        text = f"{what}: {self._remedy(answers, taken_directly)}"
        wrong = ObjectStoreForbids if self._is_forbidden else ObjectStoreRefused
        raise wrong(text, code=answers[0] if answers else "")

    def notes(self) -> list[str]:
        """What an operator should know about an object store that is usable."""
        seen = self._seen
        notes = [self._note_on_clock(), *map(self._note_on_part, DIGESTS), *map(self._note_on_object, DIGESTS)]
        if not any(way.works for way in seen.objects.values()):
            notes.append("PutObject cannot be used as devices use it: every file is sent by multipart.")
        if not seen.if_none_match:
            notes.append("If-None-Match is not enforced: one PUT is used with SHA-256 only, if that is enforced.")
        if seen.refused_characters:
            refused = ", ".join(_CLASS_NAMES.get(one, one) for one in seen.refused_characters)
            notes.append(f"Keys with these characters are refused, and names are spelled without them: {refused}.")
        return [note for note in notes if note]

    def _note_on_part(self, digest: DigestName) -> str:
        way, wrong = self._seen.parts[digest], self._seen.wrong_parts[digest]
        if way.code and not way.taken:
            return f"UploadPart with {digest} could not be tried ({way.code})."
        return _note(f"UploadPart with {digest}", way, wrong.put)

    def _note_on_object(self, digest: DigestName) -> str:
        return _note(f"PutObject with {digest}", self._seen.objects[digest], self._seen.wrong_objects[digest])

    def _note_on_clock(self) -> str:
        if self.skew is None or abs(self.skew) <= MAX_SKEW:
            return ""
        return f"The object store's clock is {self.skew:+.0f} s from this machine's: its URLs expire too early or late."

    @property
    def _puts(self) -> list[PutResult]:
        wrong = [*self._seen.wrong_objects.values(), *(way.put for way in self._seen.wrong_parts.values())]
        return [put for put in (*(way.put for way in self._seen.ways), *wrong) if put is not None]

    @property
    def _is_forbidden(self) -> bool:
        return any(put.status in _FORBIDDEN for put in self._puts)

    def _require_answers(self) -> None:
        """`ObjectStoreDown` when the object store is busy or broken, rather than unwilling."""
        busy = [put for put in self._puts if put.status >= _BUSY]
        if busy and len(busy) == len(self._puts):
            text = f"the object store answers every PUT with {busy[0].answer}"
            raise ObjectStoreDown(text)

    def _remedy(self, answers: list[str], taken_directly: Callable[[], bool]) -> str:
        settings = self._settings
        region = next((put.region for put in self._puts if put.region), "")
        if region and region != settings.region:
            return f"the bucket is in {region}, AWS_REGION is {settings.region}: set AWS_REGION={region}"
        if taken_directly():
            return (
                f"AWS_ENDPOINT takes it and S3_PUBLIC_ENDPOINT {settings.public_endpoint} does not: a proxy in between"
                " has to pass on Host, the path and every header as they were sent"
            )
        hints = [HINTS[answer] for answer in answers if answer in HINTS]
        return hints[0] if hints else "the object store cannot be used for uploads as it is set up"


def _refused(way: Way) -> bool:
    return way.put is not None and way.put.refused


def _note(what: str, way: Way, wrong: PutResult | None) -> str:
    if not way.taken:
        return f"{what} is refused even when it is right ({way.answer})."
    if not way.works:
        return f"{what} loses the metadata of the object."
    if wrong is None or not wrong.refused:
        return f"{what}: a wrong digest is not noticed."
    return ""


def _header(digest: DigestName) -> str:
    return "Content-MD5" if digest is DigestName.MD5 else f"x-amz-checksum-{digest}"
