"""What a page leads to a moment after something was done to it.

Rule: a script of the page, and a plot that follows its place, come a frame later; a test waits for the fact.
"""

from collections.abc import Callable
from typing import Final

from playwright.sync_api import Page

from tests.support.patience import came_true

_PATIENCE: Final = 60.0


def settles(happened: Callable[[], bool]) -> bool:
    """Whether it comes true within some seconds."""
    return came_true(happened, _PATIENCE)


def fits(page: Page, width: int) -> bool:
    """Whether the page is not wider than `width` pixels, once it is laid out."""
    return settles(lambda: int(page.evaluate("document.documentElement.scrollWidth")) <= width)
