"""Hypothesis strategies for every message, read off the Structs themselves: a new field is covered the day it appears.

Rule: every value drawn here is allowed by the protocol.
"""

import json
from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

from hypothesis import strategies as st
from msgspec import Struct, inspect

from schemas.messages import COMMAND_PAYLOADS, RESPONSE_PAYLOADS, Birth, Command, Presence, Response, Status
from schemas.values import Count, Instant, MessageId

SAFE: Final = 2**53 - 1
SHORT: Final = 40

texts: Final = st.text(max_size=SHORT)
json_values: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-SAFE, SAFE) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
metadata: Final = st.dictionaries(texts, json_values, max_size=3).filter(lambda map_: len(json.dumps(map_)) < 4000)


def structs(kind: type[Struct]) -> st.SearchStrategy[Any]:
    """Instances of a Struct: every required field, and any of the others."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    required = {field.name: value_of(field) for field in described.fields if field.required}
    optional = {field.name: value_of(field) for field in described.fields if not field.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: kind(**fields))


def value_of(field: inspect.Field) -> st.SearchStrategy[Any]:
    return metadata if field.name == "metadata" else values(field.type)


def values(described: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of one field, within its limits."""
    strategy: st.SearchStrategy[Any]
    match described:
        case inspect.StructType():
            strategy = structs(described.cls)
        case inspect.UnionType():
            strategy = st.one_of([values(one) for one in described.types])
        case inspect.VarTupleType(min_length=least, max_length=most):
            some = min(max(3, least or 0), 3 if most is None else most)
            strategy = st.lists(values(described.item_type), min_size=least or 0, max_size=some).map(tuple)
        case inspect.TupleType():
            strategy = st.tuples(*[values(one) for one in described.item_types])
        case inspect.DictType():
            strategy = st.dictionaries(values(described.key_type), values(described.value_type), max_size=3)
        case inspect.Metadata():
            strategy = values(described.type)
        case _:
            strategy = plain(described)
    return strategy


def plain(described: inspect.Type) -> st.SearchStrategy[Any]:
    """Values that have no parts."""
    strategy: st.SearchStrategy[Any]
    match described:
        case inspect.StrType(pattern=str(pattern)):
            strategy = st.from_regex(pattern)
        case inspect.StrType(min_length=least, max_length=most):
            strategy = st.text(min_size=least or 0, max_size=min(most or SHORT, SHORT))
        case inspect.IntType(ge=low, le=high):
            strategy = st.integers(0 if low is None else low, SAFE if high is None else high)
        case inspect.FloatType(gt=above, ge=low, le=high):
            low, open_end = (low, False) if above is None else (above, True)
            strategy = st.floats(low, high, exclude_min=open_end, allow_nan=False, allow_infinity=False)
        case inspect.EnumType():
            strategy = st.sampled_from(list(described.cls))
        case inspect.LiteralType():
            strategy = st.sampled_from(described.values)
        case inspect.DateTimeType():
            strategy = st.datetimes(timezones=st.just(UTC))
        case inspect.BoolType():
            strategy = st.booleans()
        case inspect.NoneType():
            strategy = st.none()
        case _:
            raise NotImplementedError(described)
    return strategy


def annotated(kind: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401  (an annotation)
    return values(inspect.type_info(kind))


def acting(payloads: Mapping[str, type[Any]]) -> st.SearchStrategy[tuple[str, Any]]:
    """An action and a payload that belongs to it."""
    return st.one_of([st.tuples(st.just(str(action)), structs(payload)) for action, payload in payloads.items()])


commands: Final = st.builds(
    lambda message_id, acts, **rest: Command(message_id, *acts, **rest),
    annotated(MessageId),
    acting(COMMAND_PAYLOADS),
    issued_at=st.none() | annotated(Instant),
    epoch=st.none() | annotated(Count),
    install_id=st.none() | texts,
)
responses: Final = st.builds(
    lambda message_id, acts, **rest: Response(message_id, acts[0], payload=acts[1], **rest),
    texts,
    acting(RESPONSE_PAYLOADS),
    status=texts,
    epoch=st.none() | annotated(Count),
    sequence=st.none() | annotated(Count),
    error=st.none() | texts,
    message=st.none() | texts,
)
others: Final = st.one_of(structs(Status), structs(Presence), structs(Birth))
messages: Final = st.one_of(commands, responses, others)
