"""The generated parts of the documents are fresh, complete, and agree with what the code enforces."""

from pathlib import Path

import pytest

from broker.access import render_access_list
from schemas.topics import TOPICS, Channel, Topics
from tests.docs.generated import DOCUMENTS, PROTOCOL, ROOT, SECTIONS, rendered, topics
from tests.docs.wire import MEANINGS, shapes


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_generated_parts_are_fresh(document: Path) -> None:
    """`python -m tests.docs.generated` writes them."""
    text = document.read_text()
    assert rendered(text) == text


def test_every_field_of_every_message_has_a_meaning_and_no_other() -> None:
    assert {name: set(meanings) for name, meanings in MEANINGS.items()} == {
        name: set(shape["properties"]) for name, shape in shapes().items()
    }


def test_the_protocol_document_has_the_fields_of_every_message() -> None:
    text = PROTOCOL.read_text()
    assert [name for name in shapes() if f"#### {name}\n<!-- generated: fields {name} -->" not in text] == []


def test_every_generated_section_is_used() -> None:
    texts = "".join(document.read_text() for document in DOCUMENTS)
    assert [name for name in SECTIONS if f"<!-- generated: {name} -->" not in texts] == []


def test_a_changed_type_makes_the_protocol_document_stale() -> None:
    text = PROTOCOL.read_text()
    changed = text.replace("| `load` | number,", "| `load` | array of number,")
    assert changed != text
    assert rendered(changed) == text


def test_the_topic_table_names_the_writers_that_the_broker_admits() -> None:
    """A service is a control plane or an operator, and not every topic is open to both."""
    allowed = {name: written_by(name) for name in ("control-plane", "operator-ann")}
    rows = topics().splitlines()[2:]
    for topic, row in zip(TOPICS, rows, strict=True):
        writers = row.split("|")[2].split("→")[0]
        for name, role in (("control-plane", "control plane"), ("operator-ann", "operator")):
            # Only agents publish presence, except that a control plane clears a retained one.
            if topic.channel is not Channel.PRESENCE:
                assert (role in writers) == (Topics().every(topic.channel) in allowed[name]), row


def written_by(name: str) -> set[str]:
    """The topics that the access list lets this account write."""
    section = render_access_list([name]).partition(f"user {name}\n")[2].partition("\n\n")[0]
    return {line.removeprefix("topic write ") for line in section.splitlines() if line.startswith("topic write ")}
