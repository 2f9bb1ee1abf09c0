"""The allow-list: its entries, and the host of a URL."""

import posixpath
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.errors import HostNotAllowed, SettingsError
from device_agent.storage.url_policy import ParsedUrl, UploadHosts, parse_url

HOSTS = UploadHosts.parse(
    [
        "store.example:443",
        "http://minio:9000",
        "[::1]:9000",
        "http://plain.example",
        "S3.Example",
        "http://my_box:1/",
        "https://path.example/Bucket/logs",
        "https://path.example:8443/b%20c/",
    ]
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
        ("https://[::1]:9000/b", ParsedUrl("https", "::1", 9000, "/b")),
        ("https://path.example/Bucket/logs/k?x", ParsedUrl("https", "path.example", 443, "/Bucket/logs/k?x")),
        ("https://path.example/%42ucket/logs/a%20b/..c", None),
        ("https://path.example/Bucket/logs/", None),
        ("https://path.example:8443/b%20c/%5Cx", None),
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
        "http://store.example:443/",
        "https://minio:9000/",
        "https://plain.example:80/",
        "http://path.example:443/Bucket/logs/k",
        "https://path.example/",
        "https://path.example/Bucket/logs",
        "https://path.example/Bucket/logs2/k",
        "https://path.example/bucket/logs/k",
        "https://path.example/Bucket/logs%2Fk",
        "https://path.example/Bucket/logs/../../other/k",
        "https://path.example/Bucket/logs/%2e%2e/%2E%2e/other/k",
        "https://path.example/Bucket/logs/.%2e/k",
        "https://path.example/Bucket/logs/./k",
        "https://path.example/Bucket//logs/k",
        "https://path.example//Bucket/logs/k",
        "https://path.example/Bucket/logs/a%2f..%2f..%2fk",
        "https://path.example/Bucket/logs/a%00",
        "https://path.example/Bucket/logs/a%zz",
        "https://path.example?/Bucket/logs/k",
        "https://path.example/x?/Bucket/logs/k",
    ],
)
def test_an_unlisted_host_is_refused(url: str) -> None:
    with pytest.raises(HostNotAllowed, match="UPLOAD_HOSTS"):
        HOSTS.allowed(url)


def test_an_entry_without_a_scheme_means_https_and_on_loopback_http_too() -> None:
    """The kind: a setting that knows less than what it guards. A device sent a file in clear to a port of TLS."""
    for entry, url, allowed in (
        ("127.0.0.1:9000", "http://127.0.0.1:9000/b", True),
        ("127.0.0.1:9000", "https://127.0.0.1:9000/b", True),
        ("localhost:9000", "http://localhost:9000/b", True),
        ("127.0.0.2", "http://127.0.0.2/b", True),
        ("s3.localhost:9000", "http://s3.localhost:9000/b", False),
        ("127.0.0.1.example:9000", "http://127.0.0.1.example:9000/b", False),
        ("192.0.2.1:9000", "http://192.0.2.1:9000/b", False),
        ("192.0.2.1:9000", "https://192.0.2.1:9000/b", True),
    ):
        hosts = UploadHosts.parse([entry])
        if allowed:
            assert hosts.allowed(url).target == "/b"
        else:
            with pytest.raises(HostNotAllowed):
                hosts.allowed(url)


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("http://minio:9001/logs/a/b?X-Amz-Signature=1", "http://minio:9001/logs/"),
        ("https://logs.s3.example/", "https://logs.s3.example/"),
        ("https://[::2]:9000/%2e%2e/secret-key", "https://[::2]:9000/"),
        ("https://minio:9000/" + "x" * 100 + "/k", "https://minio:9000/"),
    ],
)
def test_a_refusal_recommends_the_narrowest_entry_and_it_works(url: str, entry: str) -> None:
    with pytest.raises(HostNotAllowed) as refused:
        HOSTS.allowed(url)
    assert f"; {entry} would" in str(refused.value)
    assert url.endswith(UploadHosts.parse([entry]).allowed(url).target)


def test_an_empty_list_allows_nothing() -> None:
    with pytest.raises(HostNotAllowed):
        UploadHosts().allowed("https://store.example/")


@pytest.mark.parametrize(
    "entry",
    [
        "",
        " ",
        "ftp://store.example",
        "https:store.example",
        "https://store.example/a/../b",
        "https://store.example/a//b",
        "https://store.example/%2e%2e/",
        "https://store.example/a%2fb",
        "https://store.example/?x",
        "https://store.example/#x",
        "https://u@store.example/",
        "//store.example",
        "store.example:0",
        "store.example:65536",
        "a b",
        "*.example",
        "u@h",
        "::1",
        "h/x y",
        "https://store..example/",
        f"https://{'a' * 64}.example/",
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


PATH = st.text("abAB/.%2eEfF\\?#;+:@", max_size=16)


@given(PATH)
def test_a_url_below_a_path_is_below_it_for_servers_that_resolve_dots(path: str) -> None:
    """A server may decode, join slashes and resolve dots in any order: the result is still below the path."""
    url = f"https://path.example/Bucket/logs/{path}"
    try:
        HOSTS.allowed(url)
    except HostNotAllowed:
        return
    target = url.removeprefix("https://path.example").partition("?")[0]
    for read in (target, unquote(target)):
        assert posixpath.normpath(read.replace("//", "/")).startswith("/Bucket/logs")
