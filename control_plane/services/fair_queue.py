"""A queue that clients share, and that no client can fill for the others.

Rule: every item belongs to a lane, one for each client; lanes take turns, and one lane's items keep their order. So a
client waits for its own backlog, and for at most one item of each other client.
"""

import asyncio
from collections import OrderedDict, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Holds `most` items, of which `most_of_one` are one lane's. For one reader."""

    def __init__(self, *, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._lanes: OrderedDict[str, deque[Item]] = OrderedDict()
        self._length = 0
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return self._length

    def offer(self, lane: str, item: Item) -> bool:
        """Add an item, unless its lane is full; False when it was not added.

        When the whole queue is full, an empty lane still takes one item: other lanes filled the queue.
        """
        waiting = len(self._lanes.get(lane, ()))
        if waiting >= (self._most_of_one if self._length < self._most else 1):
            return False
        self.put(lane, item)
        return True

    def put(self, lane: str, item: Item) -> None:
        """Add an item beyond all limits: for callers that wait for its result, and so limit themselves."""
        self._lanes.setdefault(lane, deque()).append(item)
        self._length += 1
        self._filled.set()

    async def get(self) -> Item:
        """The next lane's oldest item; waits while there is none."""
        while not self._length:
            self._filled.clear()
            await self._filled.wait()
        return self.get_nowait()

    def get_nowait(self) -> Item:
        """The next lane's oldest item; `KeyError` when the queue is empty."""
        lane, items = self._lanes.popitem(last=False)
        item = items.popleft()
        if items:
            self._lanes[lane] = items
        self._length -= 1
        return item
