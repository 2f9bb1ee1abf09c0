"""The options of the command line."""

from device_agent.command_line.parser import options_of, parser


def test_without_arguments_the_options_are_those_of_the_parser() -> None:
    assert vars(options_of([])) == vars(parser().parse_args([]))
