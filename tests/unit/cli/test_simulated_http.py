"""The HTTP answers that simulated devices read."""

from control_plane.cli.simulate import http_pool


def test_any_number_of_interim_answers_is_skipped() -> None:
    """More of them than Python's stack has frames; one that is cut is not complete."""
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    data = b"HTTP/1.1 100 Continue\r\n\r\n" * 3_000 + final
    answer = http_pool._whole(data)
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"hi")
    assert http_pool._whole(data[:-1]) is None
    assert http_pool._whole(data[: -len(final)]) is None
