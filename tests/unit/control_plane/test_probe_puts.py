"""The PUT requests of the probe."""

from typing import Any

import pytest

from control_plane.adapters.object_store.probe.puts import Puts


def test_each_host_has_the_proxy_that_the_environment_names_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe may turn from S3_PUBLIC_ENDPOINT to AWS_ENDPOINT, and NO_PROXY may name only one of them."""
    for name in ("http_proxy", "no_proxy", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    used: list[str | None] = []
    with Puts(1) as puts:
        for url in ("http://outside.example/bucket/key", "http://inside.example/bucket/key"):
            session: Any = puts._opened(url)
            used.append(session._proxy_config.proxy_url_for(url))
    assert used == ["http://proxy.example:3128", None]
