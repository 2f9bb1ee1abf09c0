"""`host_name` gives what Python's codec `idna` gives, and leaves that codec alone for a name in ASCII."""

import subprocess
import sys

import pytest

from schemas.environment import host_name

LABEL = "a" * 63
GOOD = ("broker", "broker.example", "broker.example.", "10.0.0.1", "::1", "a_b.x", "", LABEL, "b\u00fccher.example")
REFUSED = (".", "a..b", ".a", "a..", f"{LABEL}a", f"{LABEL}a.b", f"b.{LABEL}a", "b\u00fccher..example", "\udce9")


@pytest.mark.parametrize("name", [*GOOD, *REFUSED])
def test_it_agrees_with_the_codec(name: str) -> None:
    try:
        expected: bytes | None = name.encode("idna")
    except UnicodeError:
        expected = None
    if expected is None:
        with pytest.raises(UnicodeError):
            host_name(name)
    else:
        assert host_name(name) == expected


def test_a_name_in_ascii_loads_no_table_of_unicode() -> None:
    code = "import sys, schemas.environment as it; it.host_name('a.b'); print('encodings.idna' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "False\n"
