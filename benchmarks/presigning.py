"""How many part URLs one core signs a second, beside botocore, which signs the same letters.

Rule: CPU time of this process, each side best of three; the bytes are compared before anything is timed.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks.figures import Figure, Report
from control_plane.adapters.object_store.clients import build_clients
from control_plane.adapters.object_store.settings import S3Settings
from control_plane.adapters.object_store.signing import Signer
from control_plane.services.ports.object_store import Grantable
from schemas.values import DigestName

KEY: Final = "uploads/restaurant-1/20260101-000000-test-file.bin"
UPLOAD_ID: Final = "2~upload-id-as-long-as-those-of-amazon-usually-are-which-is-quite-long-in-fact"
MD5: Final = "XrY7u+Ae7tCTyyK7j1rNww=="
_SIGNED: Final = 20_000
_SIGNED_BY_BOTOCORE: Final = 1_500
_ROUNDS: Final = 3


def presigning() -> Report:
    """URLs a second on one core."""
    keys = {"access_key": "benchmark", "secret_key": "benchmark"}
    clients = build_clients(S3Settings(bucket="bucket", region="eu-central-1", **keys), "virtual")
    signer = Signer(clients.signer, "bucket", clients.credentials)
    params: dict[str, Any] = {"Bucket": "bucket", "Key": KEY, "UploadId": UPLOAD_ID, "ContentMD5": MD5}

    def ours(number: int) -> str:
        return signer.part(KEY, UPLOAD_ID, Grantable(number % 10_000 + 1, 5_242_880, MD5, 900.0), DigestName.MD5).url

    def botocores(number: int) -> str:
        one = {**params, "PartNumber": number % 10_000 + 1, "ContentLength": 5_242_880}
        return clients.signer.generate_presigned_url("upload_part", one, ExpiresIn=900)

    _require_equal(ours, botocores)
    rate = max(_rate(ours, _SIGNED) for _ in range(_ROUNDS))
    beside = max(_rate(botocores, _SIGNED_BY_BOTOCORE) for _ in range(_ROUNDS))
    clients.close()
    figures = [
        Figure("part URLs signed a second, one core", rate, "/s", at_least=20_000),
        Figure("part URLs signed, beside botocore", rate, "/s", against="/s botocore", beside=beside),
    ]
    return Report("presigning", figures)


def _rate(sign: Callable[[int], str], count: int) -> float:
    started = time.process_time()
    for number in range(count):
        sign(number)
    return count / (time.process_time() - started)


def _require_equal(ours: Callable[[int], str], theirs: Callable[[int], str]) -> None:
    """Equal at least once in a few tries: the two may fall on either side of a second."""
    if not any(ours(number) == theirs(number) for number in range(5)):
        message = "our URLs are not botocore's"
        raise RuntimeError(message)
