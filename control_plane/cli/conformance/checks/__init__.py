"""The checks, one module for each group of sections of docs/protocol.md.

Rule: importing this package fills the catalogue, in the order in which the checks run.
"""

from control_plane.cli.conformance.catalogue import CATALOGUE
from control_plane.cli.conformance.checks import (
    commands,
    completion,
    ends,
    grants,
    leases,
    messages,
    offers,
    presence,
    puts,
    queries,
    refusals,
    responses,
    selections,
    sessions,
    sources,
)

_MODULES = (
    sessions,
    presence,
    commands,
    offers,
    refusals,
    grants,
    leases,
    puts,
    responses,
    ends,
    sources,
    queries,
    selections,
    completion,
    messages,
)
_ORDER = [module.__name__ for module in _MODULES]

CATALOGUE.sort(key=lambda check: _ORDER.index(check.body.__module__))
