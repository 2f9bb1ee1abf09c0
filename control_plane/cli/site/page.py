"""The link to the operator's page, and `backhaul page`, which prints it.

Rule: what signs a browser in stands in the fragment, which no browser sends and no server logs; it is a code that is
used up by the first browser, and of no use after a minute.
"""

from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.session import CliSession


def page_link(plane: ControlPlane) -> str:
    """The page's address; where the server needs a token, with a code that signs one browser in as the caller."""
    if not plane.call("GET", "/session")["auth"]:
        return f"{plane.server}/"
    code = plane.call("POST", "/session/codes")["code"]
    return f"{plane.server}/#code={code}"


def page(session: CliSession) -> None:
    """Print a link that opens the operator's page, and signs one browser in within a minute."""
    with session.connect() as plane:
        link = page_link(plane)
    session.output.result({"page": link}, link)
