"""How many examples a property test draws.

Rule: `make test` draws a quarter of them (the Hypothesis profile `quick`); `make test-all` draws all.
"""

from hypothesis import settings


def examples(full: int) -> int:
    """`full`, or a quarter of it under the profile `quick`."""
    return max(10, full // 4) if settings.get_current_profile_name() == "quick" else full
