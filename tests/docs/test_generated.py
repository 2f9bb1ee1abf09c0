"""The generated tables say what the code enforces."""

from broker.access import render_access_list
from schemas.topics import TOPICS, Channel, Topics
from tests.docs.generated import topics


def test_the_topic_table_names_as_writers_whom_the_broker_lets_write() -> None:
    """A service is a control plane or an operator, and not every topic is both's."""
    allowed = {name: written_by(name) for name in ("control-plane", "operator-ann")}
    rows = topics().splitlines()[2:]
    for topic, row in zip(TOPICS, rows, strict=True):
        writers = row.split("|")[2].split("→")[0]
        for name, role in (("control-plane", "control plane"), ("operator-ann", "operator")):
            # Presence is the agent's, but for the one that a control plane clears.
            if topic.channel is not Channel.PRESENCE:
                assert (role in writers) == (Topics().every(topic.channel) in allowed[name]), row


def written_by(name: str) -> set[str]:
    """The topics that the access list lets this account write."""
    section = render_access_list([name]).partition(f"user {name}\n")[2].partition("\n\n")[0]
    return {line.removeprefix("topic write ") for line in section.splitlines() if line.startswith("topic write ")}
