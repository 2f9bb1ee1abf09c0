"""What an operator wants of a device, as options and as members of a request.

Rule: one place, since each command that makes bundles takes them.
"""

from typing import Annotated, Any

import typer

from control_plane.cli.errors import Misused

RootFolders = Annotated[
    list[str] | None, typer.Option("--roots", metavar="PATH", help="What may be uploaded from it. Repeatable.")
]
Hosts = Annotated[
    list[str] | None, typer.Option("--hosts", metavar="HOST", help="Where parts may be sent to. Repeatable.")
]
DefaultFile = Annotated[str | None, typer.Option("--file", metavar="PATH", help="What a trigger without a path sends.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Repeatable.")]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="For people.")]


def wanted(
    roots: list[str] | None, hosts: list[str] | None, file: str | None, label: list[str] | None, note: str
) -> dict[str, Any]:
    """The members of these options; `Misused` for a label without a value."""
    pairs = [text.partition("=") for text in label or ()]
    wrong = [name for name, equals, _ in pairs if not name or not equals]
    if wrong:
        text = f"--label {wrong[0]}: write NAME=VALUE"
        raise Misused(text)
    return {
        "allowed_roots": _split(roots),
        "upload_hosts": _split(hosts),
        "file_path": file,
        "labels": {name: value for name, _, value in pairs},
        "note": note,
    }


def _split(texts: list[str] | None) -> list[str]:
    return [one.strip() for text in texts or () for one in text.split(",") if one.strip()]
