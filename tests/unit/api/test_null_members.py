"""A member that may be left out may be null too: some programs write every member that they know."""

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

import control_plane.api.app  # noqa: F401 - it imports every body
from control_plane.api.bodies import Input


def bodies(base: type[Input] = Input) -> Iterator[type[Input]]:
    for one in base.__subclasses__():
        yield one
        yield from bodies(one)


def test_null_is_taken_wherever_it_is_the_default() -> None:
    checked = 0
    for body in bodies():
        for name, member in body.model_fields.items():
            if member.is_required() or member.default_factory is not None or member.default is not None:
                continue
            written, checked = member.alias or name, checked + 1
            try:
                body.model_validate({written: None})
            except ValidationError as error:
                about = [one for one in error.errors() if one["loc"][:1] == (written,)]
                assert about == [], f"{body.__name__}.{written}"
            except TypeError as error:
                pytest.fail(f"{body.__name__}.{written}: {error}")
    assert checked > 20
