"""The findings about the operator's page.

Rule: a control plane that does not run now is no fault.
"""

from typing import Final

from control_plane.services.diagnosis.findings import Finding
from control_plane.services.ports.diagnosis import PageExaminer

_OK: Final = 200
_PAGE: Final = "page"
_STRICT: Final = ("default-src 'none'", "script-src 'self'")


async def examine_page(examiner: PageExaminer) -> list[Finding]:
    """Request the page as a browser does."""
    facts = await examiner.facts()
    if facts.status is None:
        return [Finding(_PAGE, fine=True, text=f"nothing answers at {facts.address} now ({facts.error})")]
    if facts.status != _OK:
        remedy = "is it a control plane of this version that answers there? Look at its log"
        return [Finding(_PAGE, fine=False, text=f"{facts.address} answers {facts.status}", remedy=remedy)]
    if facts.missing:
        text = f"{facts.address} lacks {', '.join(facts.missing[:3])}"
        return [Finding(_PAGE, fine=False, text=text, remedy="install the package again; let a proxy pass /static/")]
    if not all(part in (facts.policy or "") for part in _STRICT):
        text = f"{facts.address} is served without its Content-Security-Policy"
        return [Finding(_PAGE, fine=False, text=text, remedy="let the proxy in front of it pass that header")]
    return [Finding(_PAGE, fine=True, text=f"{facts.address} is served, with its Content-Security-Policy")]
