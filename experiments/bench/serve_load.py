"""How a server of `s2s serve` bears load: an open-loop generator, and checks of every answer.

Requests arrive as a Poisson process: the gaps between them are drawn from an exponential distribution before the first
is sent, and no request waits for the answer of another. Latency counts from the moment at which a request was due, so
that a server that stalls is charged for all that should have been sent meanwhile.

    s2s serve runs/quickstart --port 8080 &
    python experiments/bench/serve_load.py runs/quickstart --port 8080 rates 25 50 100 200
    python experiments/bench/serve_load.py runs/quickstart --port 8080 mixed --requests 10000 --rate 50
    python experiments/bench/serve_load.py runs/quickstart --port 8080 memory --minutes 30 --rate 50 --pid PID

`rates` sends one line per request at each rate, and compares with `Run.translate` of the same lines in this process.
`mixed` sends requests of all kinds, 5 % of them broken, and compares every answer with what the library gives, and each
refusal with the code that it must have. `memory` does so for minutes, and reads the resident memory of the server.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import s2s_jax as s2s
from s2s_jax.decode.json_records import pair_record, translation_record
from s2s_jax.text.sources import read_split

IDLE_SECONDS = 10  # after which a connection is not used again: the server may be closing it
BROKEN = (
    ("/v1/translate", b"{", 400, "bad_json"),
    ("/v1/translate", b"\xff\xfe", 400, "bad_json"),
    ("/v1/translate", b'{"linse": ["a"]}', 400, "bad_request"),
    ("/v1/translate", b'{"lines": "a"}', 400, "bad_request"),
    ("/v1/translate", b'{"lines": ["a\\nb"]}', 422, "bad_line"),
    ("/v1/translate", b'{"lines": ["a"], "model": "/etc/passwd"}', 404, "no_such_model"),
    ("/v1/translate", b'{"lines": ["' + b"a" * 5000 + b'"]}', 413, "line_too_long"),
    ("/v1/score", b'{"pairs": [["a"]]}', 400, "bad_request"),
    ("/v1/align", b"{}", 400, "bad_request"),
    ("/nowhere", b"{}", 404, "not_found"),
)


class Planned(NamedTuple):
    """A request with the answer that it must get."""

    path: str
    body: bytes
    status: int
    expected: Any  # of a refusal the code
    lines: int = 1


class Answer(NamedTuple):
    """What came back."""

    seconds: float  # from the moment at which the request was due
    outcome: str  # right, wrong, lost, refused
    lines: int


class Client:
    """HTTP connections to one server; one that is idle is used again."""

    def __init__(self, port: int):
        self.port, self.idle = port, []

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the response."""
        while self.idle and time.monotonic() - self.idle[-1][2] > IDLE_SECONDS:
            self.idle.pop()[1].close()
        if self.idle:
            reader, writer, _ = self.idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        writer.write(f"{head}\r\n\r\n".encode() + body)
        status_line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields if field)
        if "content-length" in headers:
            content = await reader.readexactly(int(headers["content-length"]))
        else:  # a stream, in chunks
            content = b""
            while size := int(await reader.readline(), 16):
                content += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        if headers.get("connection") == "close":
            writer.close()
        else:
            self.idle.append((reader, writer, time.monotonic()))
        return int(status_line.split()[1]), content


async def send(client: Client, planned: Planned, due: float) -> Answer:
    """Send a request when it is due, and judge the answer; what the queue refused is sent again."""
    await asyncio.sleep(max(0.0, due - time.perf_counter()))
    outcome = "lost"
    for _ in range(20):
        try:
            status, content = await asyncio.wait_for(client.post(planned.path, planned.body), 60)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            break
        if status != 429:
            outcome = "right" if status == planned.status and found(planned, content) == planned.expected else "wrong"
            break
        outcome = "refused"
        await asyncio.sleep(1)
    return Answer(time.perf_counter() - due, outcome, planned.lines)


def found(planned: Planned, content: bytes) -> Any:
    """What is compared with the expected answer."""
    if planned.status != 200:
        return json.loads(content)["error"]["code"]
    if content.startswith(b"id: "):
        events = [event.split("data: ", 1)[1] for event in content.decode().split("\n\n") if event.startswith("id: ")]
        return [{name: value for name, value in json.loads(event).items() if name != "line"} for event in events]
    (records,) = (value for name, value in json.loads(content).items() if name != "model")
    return [each["alignment"] for each in records] if planned.path == "/v1/align" else records


async def load(port: int, plans: list[Planned], rate: float, seed: int) -> list[Answer]:
    """Send all requests at this rate per second."""
    chance, due, client = random.Random(seed), time.perf_counter() + 0.1, Client(port)
    tasks = []
    for planned in plans:
        due += chance.expovariate(rate)
        tasks.append(asyncio.create_task(send(client, planned, due)))
    return await asyncio.gather(*tasks)


class Pool:
    """Lines and pairs with what the library gives for them, in batches as the server has them."""

    def __init__(self, directory: str, *, rows: int, size: int):
        self.run = s2s.load(directory, changes=["search.batch_invariant=true", f"search.batch_size={rows}"])
        examples, _ = read_split(self.run.experiment.data, "test")
        chosen = examples[:size]
        self.lines = [each.source for each in chosen]
        self.pairs = [(each.source, each.target) for each in chosen]
        self.translations = [plain(translation_record(each, 1)) for each in self.run.stream(self.lines)]
        self.scores = [plain(pair_record(each)) for each in self.run.score(self.pairs)]

    def line(self, row: int) -> Planned:
        """A request of one line."""
        return Planned("/v1/translate", packed(lines=[self.lines[row]]), 200, [short(self.translations[row])])

    def mixed(self, chance: random.Random, broken: float) -> Planned:
        """A request of any kind."""
        if chance.random() < broken:
            return Planned(*chance.choice(BROKEN), lines=0)
        rows = [chance.randrange(len(self.lines)) for _ in range(chance.choice((1, 1, 1, 2, 5, 9)))]
        lines, pairs = [self.lines[row] for row in rows], [self.pairs[row] for row in rows]
        kind = chance.choice(("one", "translate", "full", "stream", "score", "align"))
        if kind == "one":
            return self.line(rows[0])
        if kind == "score":
            scores = [without(self.scores[row], "alignment") for row in rows]
            return Planned("/v1/score", packed(pairs=pairs, tokens=True), 200, scores, len(rows))
        if kind == "align":
            alignments = [self.scores[row]["alignment"] for row in rows]
            return Planned("/v1/align", packed(pairs=pairs), 200, alignments, len(rows))
        if kind == "full":
            full = [self.translations[row] for row in rows]
            return Planned("/v1/translate", packed(lines=lines, tokens=True, alignment=True), 200, full, len(rows))
        body = packed(lines=lines, stream=kind == "stream")
        return Planned("/v1/translate", body, 200, [short(self.translations[row]) for row in rows], len(rows))


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """The record as JSON gives it back."""
    return json.loads(json.dumps(record))


def short(record: dict[str, Any]) -> dict[str, Any]:
    """A translation without tokens and alignment."""
    hypotheses = [without(each, "tokens", "log_probs", "alignment") for each in record["hypotheses"]]
    return {**without(record, "source_tokens"), "hypotheses": hypotheses}


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    """The record without some entries."""
    return {name: value for name, value in record.items() if name not in names}


def packed(**body: Any) -> bytes:
    """A body."""
    return json.dumps(body).encode()


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def report(answers: list[Answer], seconds: float, label: str) -> None:
    """Print one line about a load."""
    times = sorted(each.seconds for each in answers if each.outcome == "right")
    outcomes = Counter(each.outcome for each in answers)
    lines = sum(each.lines for each in answers if each.outcome == "right")
    cuts = statistics.quantiles(times, n=100) if len(times) > 1 else [0.0] * 99
    latency = ", ".join(f"p{cut} {1000 * cuts[cut - 1]:.0f}" for cut in (50, 90, 99))
    counts = ", ".join(f"{outcomes[name]} {name}" for name in ("right", "wrong", "lost", "refused"))
    say(f"{label}: {lines / seconds:.1f} sentences/s; {latency}, max {1000 * max(times, default=0):.0f} ms; {counts}")


def measure(port: int, plans: list[Planned], rate: float, label: str, seed: int = 1) -> list[Answer]:
    """Send and report."""
    started = time.perf_counter()
    answers = asyncio.run(load(port, plans, rate, seed))
    report(answers, time.perf_counter() - started, label)
    return answers


def measure_library(pool: Pool, directory: str) -> None:
    """Print what `translate` does in one process, in its own batches and in those of the server."""
    for name, run in (("batches of 64", s2s.load(directory)), ("batches as the server has them", pool.run)):
        run.translate(pool.lines)  # compiles
        started = time.perf_counter()
        run.translate(pool.lines)
        say(f"translate, {name}: {len(pool.lines) / (time.perf_counter() - started):.1f} sentences/s")


def resident_megabytes(pid: int) -> float:
    """The resident memory of a process."""
    (line,) = (each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--rows", type=int, default=8, help="of the server")
    parser.add_argument("--pool", type=int, default=300, help="different lines")
    modes = parser.add_subparsers(dest="mode", required=True)
    rates = modes.add_parser("rates")
    rates.add_argument("rates", type=float, nargs="+", help="requests per second")
    rates.add_argument("--seconds", type=float, default=15)
    for name in ("mixed", "memory"):
        mode = modes.add_parser(name)
        mode.add_argument("--rate", type=float, default=50)
        mode.add_argument("--broken", type=float, default=0.05)
    modes.choices["mixed"].add_argument("--requests", type=int, default=10_000)
    modes.choices["memory"].add_argument("--minutes", type=float, default=30)
    modes.choices["memory"].add_argument("--pid", type=int, required=True)
    options = parser.parse_args()
    pool, chance = Pool(options.run, rows=options.rows, size=options.pool), random.Random(0)
    if options.mode == "rates":
        measure_library(pool, options.run)
        for rate in options.rates:
            plans = [pool.line(chance.randrange(len(pool.lines))) for _ in range(int(rate * options.seconds))]
            measure(options.port, plans, rate, f"{rate:g}/s offered")
    elif options.mode == "mixed":
        plans = [pool.mixed(chance, options.broken) for _ in range(options.requests)]
        measure(options.port, plans, options.rate, f"{options.requests} mixed requests, {options.rate:g}/s")
    else:
        end = time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            plans = [pool.mixed(chance, options.broken) for _ in range(int(60 * options.rate))]
            measure(options.port, plans, options.rate, f"resident {resident_megabytes(options.pid):.1f} MB")


if __name__ == "__main__":
    main()
