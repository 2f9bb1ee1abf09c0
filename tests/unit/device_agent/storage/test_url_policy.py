"""The allow-list: its entries, and the host of a URL."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.errors import HostNotAllowed, SettingsError
from device_agent.storage.url_policy import ParsedUrl, UploadHosts, parse_url

HOSTS = UploadHosts.parse(
    ["store.example:443", "minio:9000", "[::1]:9000", "plain.example:80", "S3.Example", "my_box:1"]
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://store.example/b/k?partNumber=1", ParsedUrl("https", "store.example", 443, "/b/k?partNumber=1")),
        ("https://store.example:443/", ParsedUrl("https", "store.example", 443, "/")),
        ("HTTPS://STORE.example/K", ParsedUrl("https", "store.example", 443, "/K")),
        ("https://store.example", ParsedUrl("https", "store.example", 443, "/")),
        ("https://store.example?q=1", ParsedUrl("https", "store.example", 443, "/?q=1")),
        ("http://minio:9000/b", ParsedUrl("http", "minio", 9000, "/b")),
        ("http://[::1]:9000/b", ParsedUrl("http", "::1", 9000, "/b")),
        ("http://plain.example/b", ParsedUrl("http", "plain.example", 80, "/b")),
        ("https://s3.example/b", ParsedUrl("https", "s3.example", 443, "/b")),
        ("http://my_box:1/b", ParsedUrl("http", "my_box", 1, "/b")),
        ("https://store.example/a%20b/%2e%2e/c@d:e?x=/&y=%0a", None),
    ],
)
def test_a_listed_host_is_allowed(url: str, expected: ParsedUrl | None) -> None:
    parsed = HOSTS.allowed(url)
    assert expected is None or parsed == expected
    assert url.endswith(parsed.target.removeprefix("/"))


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example/",
        "https://store.example:8443/",
        "http://store.example/",
        "https://plain.example/",
        "http://s3.example/",
        "https://a.store.example/",
        "https://store.example.evil/",
        "http://127.0.0.1:9000/",
        "http://[::2]:9000/",
        "http://[0:0:0:0:0:0:0:1]:9000/",
    ],
)
def test_an_unlisted_host_is_refused(url: str) -> None:
    with pytest.raises(HostNotAllowed, match="UPLOAD_HOSTS"):
        HOSTS.allowed(url)


def test_an_empty_list_allows_nothing() -> None:
    with pytest.raises(HostNotAllowed):
        UploadHosts().allowed("https://store.example/")


@pytest.mark.parametrize(
    "entry",
    [
        "",
        " ",
        "https://store.example",
        "store.example:0",
        "store.example:65536",
        "a b",
        "*.example",
        "u@h",
        "::1",
        "h/x",
    ],
)
def test_a_wrong_entry_is_named(entry: str) -> None:
    with pytest.raises(SettingsError, match="UPLOAD_HOSTS"):
        UploadHosts.parse(["minio:9000", entry])


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://store.example{text}"):
        try:
            parsed = parse_url(url)
        except HostNotAllowed:
            continue
        assert urlsplit(url).hostname == parsed.host


AUTHORITY = st.text("abAB01.-_:@[]/\\?#%\t\n ", max_size=20)


@given(AUTHORITY, AUTHORITY)
def test_other_parsers_read_the_same_host_from_an_allowed_url(before: str, after: str) -> None:
    url = f"https://{before}store.example{after}"
    try:
        parsed = HOSTS.allowed(url)
    except HostNotAllowed:
        return
    parts = urlsplit(url)
    assert (parts.hostname, parts.port or 443, parts.username) == (parsed.host, parsed.port, None)
