"""The one lifecycle rule that Backhaul needs: multipart uploads that nothing completes are aborted.

Rule: pure. Other rules stay as they are, and ours has the form that the others have.
"""

from collections.abc import Mapping
from typing import Any, Final

from control_plane.domain.uploads.model import MAX_DEADLINE
from control_plane.services.policy import DAY

RULE_ID: Final = "backhaul-abort-incomplete-uploads"
RULE_DAYS: Final = int(MAX_DEADLINE / DAY) + 1
"""An upload lives until its deadline at most; a day later its parts are of no use."""

Configuration = Mapping[str, Any]


def with_our_rule(configuration: Configuration, prefix: str) -> Configuration:
    """The configuration with our rule; equal to `configuration` when it has the rule already, in either form."""
    rules = list(configuration["Rules"])
    places = [at for at, rule in enumerate(rules) if rule.get("ID") == RULE_ID]
    ours = _our_rule(prefix, old_form=any("Filter" not in rule and "Prefix" in rule for rule in rules))
    if places:
        rules[places[0]] = ours
    else:
        rules.append(ours)
    return {**configuration, "Rules": rules}


def in_old_form(configuration: Configuration, prefix: str) -> Configuration:
    """The configuration with our rule in the form without `Filter`, which some object stores take alone."""
    ours = _our_rule(prefix, old_form=True)
    return {**configuration, "Rules": [ours if rule.get("ID") == RULE_ID else rule for rule in configuration["Rules"]]}


def aborts_too_early(configuration: Configuration, prefix: str) -> str | None:
    """The id of another rule that aborts our uploads before their deadline can have passed; None without one."""
    for rule in configuration["Rules"]:
        days = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation", RULE_DAYS)
        where = rule.get("Filter", {}).get("Prefix", rule.get("Prefix", ""))
        covers = prefix.startswith(where) or where.startswith(prefix)
        if rule.get("Status") == "Enabled" and rule.get("ID") != RULE_ID and covers and days < RULE_DAYS:
            return str(rule.get("ID", "without an id"))
    return None


def _our_rule(prefix: str, *, old_form: bool) -> dict[str, Any]:
    where = {"Prefix": prefix} if old_form else {"Filter": {"Prefix": prefix}}
    abort = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": RULE_DAYS}}
    return {"ID": RULE_ID, **where, "Status": "Enabled", **abort}
