"""URLs that parsers read differently are refused, and redirects are not followed: nothing is sent.

Rule: a corpus of known attacks (Orange Tsai, "A New Era of SSRF"; the WHATWG URL tests; CVE-2019-9636, CVE-2023-24329).
"""

import threading
from pathlib import Path

import pytest

from device_agent.errors import HostNotAllowed, PutFailed, PutFailure
from device_agent.files.roots import Roots
from device_agent.files.source import open_source
from device_agent.storage.uploader import Uploader
from device_agent.storage.url_policy import UploadHosts
from schemas.parts import Part
from schemas.values import PresignedPart
from tests.support.put_sink import PutSink, Script

HOSTS = UploadHosts.parse(["http://good.example", "https://good.example"])

DECEPTIVE = [
    "http://good.example@evil.example/",
    "http://good.example:80@evil.example/",
    "http://evil.example@good.example/",
    "http://evil.example:80@good.example/",
    "http://@good.example/",
    "http://:@good.example/",
    "http://good.example#@evil.example/",
    "http://good.example/#fragment",
    "http://evil.example#good.example/",
    "http://evil.example?@good.example/",
    "http://evil.example\\@good.example/",
    "http://good.example\\@evil.example/",
    "http://good.example\\.evil.example/",
    "http:\\\\good.example/",
    "http:/good.example/",
    "http:///good.example/",
    "http:good.example/",
    "//good.example/",
    "good.example/",
    "http://good.example:/",
    "http://good.example:80:80/",
    "http://good.example:80evil/",
    "http://good.example:080080/",
    "http://good.example:-1/",
    "http://good.example:+80/",
    "http://good.example: 80/",
    "http://good.example:\N{SUPERSCRIPT TWO}/",
    "http://good.example:\N{ARABIC-INDIC DIGIT EIGHT}0/",
    "http://good\N{IDEOGRAPHIC FULL STOP}example/",
    "http://good\N{FULLWIDTH FULL STOP}example/",
    "http://\N{FULLWIDTH LATIN SMALL LETTER G}ood.example/",
    "http://good.example\N{ACCOUNT OF}.evil.example/",
    "http://good.example\N{FULLWIDTH NUMBER SIGN}@evil.example/",
    "http://good.ex\N{SOFT HYPHEN}ample/",
    "http://good.example%00.evil.example/",
    "http://good.example%2eevil.example/",
    "http://%67ood.example/",
    "http://good.example\0.evil.example/",
    "http://good.example\t/",
    "http://go\nod.example/",
    "http://good.example/\r\nHost: evil.example",
    "http://good.example/ HTTP/1.1",
    "http://good.example/a b",
    "http://good.example/\N{LATIN SMALL LETTER U WITH DIAERESIS}",
    " http://good.example/",
    "http://good.example/ ",
    "http://good.example/\n",
    "http://[good.example]/",
    "http://[::ffff:127.0.0.1%25lo]/",
    "http://[::1/",
    "http://::1]/",
    "http://0x7f.1/",
    "http://2130706433/",
    "http://017700000001/",
    "http://169.254.169.254/latest/meta-data/",
    "https://good.example.:443/",
    "ftp://good.example/",
    "file:///etc/passwd",
    "gopher://good.example:80/_PUT",
    "javascript://good.example/",
    "HtTpX://good.example/",
    "",
    "http://",
    "http:///",
    "http://" + "a" * 300 + ".example/",
    "http://good.example/" + "a" * 9000,
]


@pytest.mark.parametrize("url", DECEPTIVE)
def test_a_deceptive_url_is_refused(url: str) -> None:
    with pytest.raises(HostNotAllowed) as refused:
        HOSTS.allowed(url)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(tmp_path: Path, status: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with PutSink() as store, PutSink() as elsewhere, open_source(str(path), Roots((str(tmp_path),))) as source:
        store.expect(Script(status=status, headers={"Location": elsewhere.url()}))
        # Both hosts are allowed, so only the missing support of redirects keeps the bytes from the second.
        uploader = Uploader(UploadHosts.parse([store.host_port, elsewhere.host_port]))
        part = PresignedPart(1, store.url())
        with pytest.raises(PutFailed) as failed:
            uploader.put(part, source, Part(1, 0, 100), stopped=threading.Event().is_set, on_bytes=lambda _: None)
        uploader.close()
        assert failed.value.kind is PutFailure.TRY_AGAIN
        assert elsewhere.puts == []
