"""The members that `--fields` knows are those of REST's answers."""

from tests.docs.cli_fields import MODULE, module


def test_the_members_of_every_answer_are_fresh() -> None:
    """`python -m tests.docs.generated` writes them."""
    assert MODULE.read_text() == module()
