"""Requests of many clients in common batches: a bounded queue, and the one thread that computes.

The queue belongs to the event loop, so that nothing is locked. Items of one group (`models.Group`) share a batch. It is
computed when it is full, or when its first item has waited for `wait` milliseconds, whichever group's first item came
first; while a batch is computed, the next ones gather. The shape of a batch depends on the group alone, and so its
results on no neighbor and no load.
"""

import asyncio
import collections
import contextlib
import math
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from s2s_jax.serve.config import ServeConfig
from s2s_jax.serve.errors import RequestError
from s2s_jax.serve.metrics import Metrics
from s2s_jax.serve.models import Group

RATE_MEMORY = 0.9  # weight of the past in the estimate of lines per second


class Item(NamedTuple):
    """A line or a pair that waits."""

    payload: Any
    result: asyncio.Future
    arrived: float  # by time.monotonic
    deadline: float


class Batcher:
    """The queue, and what empties it."""

    def __init__(self, config: ServeConfig):
        self.config, self.waiting = config, 0
        self.metrics = Metrics(lambda: self.waiting)
        self._groups: dict[Group, collections.deque[Item]] = {}
        self._changed, self._room = asyncio.Event(), asyncio.Event()
        self._lines_per_second, self._busy = 0.0, False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="s2s-compute")
        self._task: asyncio.Task | None = None

    async def compile(self, groups: Sequence[Group]) -> None:
        """Compile every program in the thread, so that the server answers meanwhile; then be ready."""
        loop = asyncio.get_running_loop()
        for group in groups:
            await loop.run_in_executor(self._thread, group.program.compile, group.shape, group.sizes)
        self.metrics.ready = True

    def start(self) -> None:
        """Begin to empty the queue."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Compute what waits still, then end."""
        while (self.waiting or self._busy) and self._task is not None and not self._task.done():
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=False, cancel_futures=True)

    def submit(self, work: Sequence[tuple[Group, Any]], *, seconds: float) -> list[asyncio.Future]:
        """The results of items, all of which are queued or none.

        Raises:
            RequestError: the queue has no place for all of them.
        """
        if self.waiting + len(work) > self.config.queue:
            pace = self._lines_per_second or 1.0
            retry = min(60, max(1, math.ceil((self.waiting + len(work) - self.config.queue) / pace)))
            raise RequestError(
                "queue_full", f"{self.waiting:,} lines wait, at most {self.config.queue:,} may", retry_after=retry
            )
        now, loop = time.monotonic(), asyncio.get_running_loop()
        futures = []
        for group, payload in work:
            item = Item(payload, loop.create_future(), now, now + seconds)
            self._groups.setdefault(group, collections.deque()).append(item)
            futures.append(item.result)
        self.waiting += len(work)
        self._changed.set()
        return futures

    async def room(self, count: int) -> None:
        """Wait until the queue has so many places."""
        while self.waiting + count > self.config.queue:
            self._room.clear()
            await self._room.wait()

    def cancel(self, futures: Sequence[asyncio.Future]) -> None:
        """Take items out of the queue whose results nobody waits for."""
        for future in futures:
            future.cancel()
        self._drop_dead()

    async def _run(self) -> None:
        while True:
            group, items = await self._next_batch()
            started = time.monotonic()
            loop = asyncio.get_running_loop()
            try:
                payloads = [item.payload for item in items]
                results = await loop.run_in_executor(self._thread, group.program.compute, payloads)
            except Exception:
                traceback.print_exc(file=sys.stderr)
                results = [RequestError("internal_error", "the server failed; its log says how")] * len(items)
            self._deliver(items, results, time.monotonic() - started)
            self._busy = False

    def _deliver(self, items: Sequence[Item], results: Sequence[Any], seconds: float) -> None:
        for item, result in zip(items, results, strict=True):
            if item.result.done():  # the client has left meanwhile
                continue
            if isinstance(result, RequestError):
                item.result.set_exception(result)
            else:
                item.result.set_result(result)
        pace = len(items) / max(seconds, 1e-6)
        self._lines_per_second = RATE_MEMORY * (self._lines_per_second or pace) + (1 - RATE_MEMORY) * pace
        self.metrics.lines.add(amount=len(items))
        self.metrics.batches.observe(len(items))
        self.metrics.busy.add(amount=seconds)

    async def _next_batch(self) -> tuple[Group, list[Item]]:
        """The next items to compute; waits for them."""
        while True:
            self._drop_dead()
            now, due = time.monotonic(), math.inf
            for group, items in sorted(self._groups.items(), key=lambda pair: pair[1][0].arrived):
                ready_at = -math.inf if len(items) >= group.shape.rows else items[0].arrived + self.config.wait / 1000
                if ready_at <= now:
                    return group, self._take(group)
                due = min(due, ready_at)
            self._changed.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), None if due == math.inf else due - now)

    def _take(self, group: Group) -> list[Item]:
        """The first items of a group, at most a batch of them."""
        items = self._groups[group]
        taken = [items.popleft() for _ in range(min(len(items), group.shape.rows, self.config.rows))]
        if not items:
            del self._groups[group]
        self._leave(len(taken))
        self._busy = True
        return taken

    def _drop_dead(self) -> None:
        """Take those out of the queue whose client has left or whose deadline is over."""
        now = time.monotonic()
        for group, items in list(self._groups.items()):
            if not any(item.result.done() or item.deadline <= now for item in items):
                continue
            alive: collections.deque[Item] = collections.deque()
            for item in items:
                if item.result.done():
                    self.metrics.dropped.add("client left")
                elif item.deadline <= now:
                    item.result.set_exception(RequestError("deadline", "the answer was not there in time"))
                    self.metrics.dropped.add("deadline")
                else:
                    alive.append(item)
            self._leave(len(items) - len(alive))
            self._groups[group] = alive
            if not alive:
                del self._groups[group]

    def _leave(self, count: int) -> None:
        self.waiting -= count
        self._room.set()
