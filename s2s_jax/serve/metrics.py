"""What a server counts, in the text format of Prometheus."""

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence

import jax

COMPILATION = "/jax/core/compile/backend_compile_duration"  # recorded by jax for each program that it compiles
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Counter:
    """A number per value of its labels, which only grows."""

    kind = "counter"

    def __init__(self, name: str, description: str, *labels: str):
        self.name, self.description, self.labels = name, description, labels
        self.values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Add to the number of these labels."""
        self.values[labels] = self.values.get(labels, 0.0) + amount

    def samples(self) -> Iterator[str]:
        """The lines of its values."""
        for values, number in list(self.values.items()):
            yield f"{self.name}{_labels(zip(self.labels, values, strict=True))} {number:g}"


class Gauge:
    """A number that is read when it is wanted."""

    kind = "gauge"

    def __init__(self, name: str, description: str, read: Callable[[], float]):
        self.name, self.description, self.read = name, description, read

    def samples(self) -> Iterator[str]:
        """The line of its value."""
        yield f"{self.name} {self.read():g}"


class Histogram:
    """How many observations were at most so large."""

    kind = "histogram"

    def __init__(self, name: str, description: str, bounds: Sequence[float]):
        self.name, self.description, self.bounds = name, description, bounds
        self.counts, self.sum = [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count an observation."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def samples(self) -> Iterator[str]:
        """The lines of its buckets, sum and count."""
        bounds = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        for bound, count in zip(bounds, itertools.accumulate(self.counts), strict=True):
            yield f'{self.name}_bucket{{le="{bound}"}} {count}'
        yield f"{self.name}_sum {self.sum:g}"
        yield f"{self.name}_count {sum(self.counts)}"


class Metrics:
    """Everything that is counted."""

    def __init__(self, waiting: Callable[[], int]):
        """`waiting` gives the number of lines in the queue."""
        self.requests = Counter("s2s_requests_total", "Requests by path and status.", "path", "status")
        self.latency = Histogram("s2s_request_seconds", "Seconds from a request to its whole answer.", SECONDS)
        self.lines = Counter("s2s_lines_total", "Lines and pairs that were computed.")
        self.batches = Histogram("s2s_batch_lines", "Lines of a batch, without its padding.", SIZES)
        self.busy = Counter("s2s_busy_seconds_total", "Seconds in which batches were computed.")
        self.dropped = Counter("s2s_dropped_total", "Lines that were not computed, by reason.", "reason")
        self.compilations = Counter("s2s_compilations_total", "Programs that were compiled.", "when")
        self.queue = Gauge("s2s_queue_lines", "Lines that wait.", waiting)
        self.ready = False
        for when in ("start", "load"):
            self.compilations.add(when, amount=0)

    def count_compilations(self) -> Callable[[], None]:
        """Count the programs that jax compiles from now on, until the returned function is called."""

        def record(event: str, duration_secs: float, **_: str | int) -> None:
            if event == COMPILATION:
                self.compilations.add("load" if self.ready else "start")

        jax.monitoring.register_event_duration_secs_listener(record)
        return lambda: jax.monitoring.unregister_event_duration_listener(record)

    def text(self) -> str:
        """All values, in the text format of Prometheus, version 0.0.4."""
        lines = []
        for metric in vars(self).values():
            if isinstance(metric, Counter | Gauge | Histogram):
                lines += [f"# HELP {metric.name} {metric.description}", f"# TYPE {metric.name} {metric.kind}"]
                lines += metric.samples()
        return "\n".join(lines) + "\n"


def _labels(pairs: Iterator[tuple[str, str]]) -> str:
    escaped = [f'{name}="{value.translate(ESCAPES)}"' for name, value in pairs]
    return "{" + ",".join(escaped) + "}" if escaped else ""


ESCAPES = {ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n"}
