"""The queue of the server, with programs that need no model: who shares a batch, who waits, and who is let go."""

import asyncio
import threading

import pytest

from s2s_jax.decode.batching import Shape
from s2s_jax.serve.batcher import Batcher
from s2s_jax.serve.config import ServeConfig
from s2s_jax.serve.errors import RequestError
from s2s_jax.serve.models import Group


class Doubling:
    """A program that doubles numbers, once its gate is open, and keeps its batches."""

    def __init__(self, *, closed=False):
        self.batches, self.gate, self.begun = [], threading.Event(), threading.Event()
        if not closed:
            self.gate.set()

    def compute(self, items):
        self.begun.set()
        assert self.gate.wait(10)
        self.batches.append(list(items))
        if "broken" in items:
            raise ArithmeticError("a fault of the program")
        return [2 * item for item in items]

    def compile(self, shape, sizes):
        self.batches.append(shape)


def group(program, *, rows=4, length=8):
    return Group(program, Shape(rows, length))


def run(test, **settings):
    """Run a test with a batcher that has started."""

    async def main():
        batcher = Batcher(ServeConfig(**{"rows": 4, "wait": 2.0, "queue": 8, "max_lines": 8, **settings}))
        batcher.start()
        try:
            await asyncio.wait_for(test(batcher), 10)
        finally:
            await batcher.stop()

    asyncio.run(main())


async def begun(program):
    while not program.begun.is_set():
        await asyncio.sleep(0.001)


def test_items_of_one_group_share_a_batch_and_others_do_not():
    program = Doubling()

    async def test(batcher):
        short, long = group(program), group(program, length=16)
        clients = [batcher.submit([(short, 1), (long, 10)], seconds=5), batcher.submit([(short, 2)], seconds=5)]
        results = [await asyncio.gather(*client) for client in clients]
        assert results == [[2, 20], [4]]
        assert program.batches == [[1, 2], [10]]
        assert batcher.waiting == 0

    run(test)


def test_a_full_batch_does_not_wait_and_is_never_overfull():
    program = Doubling()

    async def test(batcher):
        futures = batcher.submit([(group(program), number) for number in range(6)], seconds=5)
        assert await asyncio.gather(*futures[:4]) == [0, 2, 4, 6]
        assert not futures[4].done()  # it waits for two more
        batcher.submit([(group(program), 6), (group(program), 7)], seconds=5)
        assert await futures[4] == 8
        assert program.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]

    run(test, wait=5000.0)


def test_the_group_that_has_waited_longest_comes_first_even_beside_full_ones():
    program = Doubling(closed=True)

    async def test(batcher):
        first = batcher.submit([(group(program), 0)], seconds=5)
        await begun(program)
        late = batcher.submit([(group(program, length=16), 1)], seconds=5)
        full = batcher.submit([(group(program), number) for number in range(2, 6)], seconds=5)
        await asyncio.sleep(0.005)
        program.gate.set()
        await asyncio.gather(*first, *late, *full)
        assert program.batches == [[0], [1], [2, 3, 4, 5]]

    run(test)


def test_a_request_is_queued_as_a_whole_or_refused_with_the_time_to_wait():
    program = Doubling(closed=True)

    async def test(batcher):
        under_way = batcher.submit([(group(program), 0)], seconds=5)
        await begun(program)
        waiting = batcher.submit([(group(program), number) for number in range(6)], seconds=5)
        with pytest.raises(RequestError, match="6 lines wait, at most 8 may") as refused:
            batcher.submit([(group(program), number) for number in range(3)], seconds=5)
        assert (refused.value.status, batcher.waiting) == (429, 6)
        assert refused.value.headers["Retry-After"] == str(refused.value.retry_after)
        assert refused.value.retry_after >= 1
        more = batcher.submit([(group(program), number) for number in range(2)], seconds=5)
        program.gate.set()
        await asyncio.gather(*under_way, *waiting, *more)
        assert batcher.waiting == 0

    run(test)


def test_a_client_that_leaves_frees_its_places():
    program = Doubling(closed=True)

    async def test(batcher):
        under_way = batcher.submit([(group(program), 0)], seconds=5)
        await begun(program)
        leaving = batcher.submit([(group(program), number) for number in range(1, 8)], seconds=5)
        waits = asyncio.create_task(batcher.room(4))
        await asyncio.sleep(0.005)
        assert not waits.done()
        batcher.cancel([*leaving, *under_way])
        await waits
        assert batcher.waiting == 0
        staying = batcher.submit([(group(program), 9)], seconds=5)
        program.gate.set()
        assert await asyncio.gather(*staying) == [18]
        assert program.batches == [[0], [9]]
        assert batcher.metrics.dropped.values == {("client left",): 7}

    run(test)


def test_an_item_whose_deadline_is_over_is_not_computed():
    program = Doubling(closed=True)

    async def test(batcher):
        under_way = batcher.submit([(group(program), 0)], seconds=5)
        await begun(program)
        late, other = (
            batcher.submit([(group(program), 1)], seconds=0.0),
            batcher.submit([(group(program), 2)], seconds=5),
        )
        await asyncio.sleep(0.001)
        program.gate.set()
        with pytest.raises(RequestError, match="was not there in time"):
            await late[0]
        assert await asyncio.gather(*under_way, *other) == [0, 4]
        assert program.batches == [[0], [2]]

    run(test)


def test_a_fault_is_of_its_batch_alone(capsys):
    program = Doubling()

    async def test(batcher):
        broken = batcher.submit([(group(program), "broken"), (group(program), 1)], seconds=5)
        for future in broken:
            with pytest.raises(RequestError, match="the server failed"):
                await future
        (fine,) = batcher.submit([(group(program), 3)], seconds=5)
        assert await fine == 6

    run(test)
    assert "a fault of the program" in capsys.readouterr().err


def test_the_end_computes_what_waits():
    program = Doubling(closed=True)

    async def main():
        batcher = Batcher(ServeConfig(rows=4, wait=50.0))
        batcher.start()
        await batcher.compile([group(program)])
        assert batcher.metrics.ready
        futures = batcher.submit([(group(program), 1)], seconds=5)
        stopping = asyncio.create_task(batcher.stop())
        await begun(program)
        await asyncio.sleep(0.02)
        assert not stopping.done()
        program.gate.set()
        await stopping
        assert futures[0].done()
        assert await futures[0] == 2
        assert program.batches == [Shape(4, 8), [1]]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": "0.0.0.0"}, "--host 0.0.0.0 is reached from other machines, .* add --token"),
        ({"host": "example.org"}, "--host example.org is reached from other machines"),
        ({"host": "0.0.0.0", "token": "with space"}, "--token must be printable ASCII without spaces"),
        ({"token": "ключ"}, "--token must be printable ASCII"),
        ({"rows": 0}, "--rows must be positive, got 0"),
        ({"max_bytes": 0}, "--max-bytes must be positive, got 0"),
        ({"wait": -1.0}, "--wait must be zero or more, got -1"),
        ({"deadline": 0.0}, "--deadline must be more than 0 seconds, got 0"),
        ({"port": 70000}, "--port must be between 0 and 65535, got 70000"),
        ({"queue": 8, "max_lines": 9}, "--max-lines must be at most --queue=8, got 9; raise --queue"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ServeConfig(**settings)


def test_loopback_needs_no_token_and_padded_lengths_are_those_of_batches():
    assert all(ServeConfig(host=host).is_local for host in ("127.0.0.1", "localhost", "::1", "127.8.0.1"))
    assert not ServeConfig(host="::", token="secret").is_local
    assert ServeConfig(max_tokens=40).lengths == [8, 12, 16, 24, 32, 48]
