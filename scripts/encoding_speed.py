"""Measure the start of a training on many pairs: reading, vocabularies, ids, batches, and the memory that they take.

    python scripts/encoding_speed.py [--pairs 200000] [--files train.en,train.de] [--cache DIR] [--workers 2]

Without files the pairs are made of random words, 10 per line. A second time with the same cache, ids are found in it.
"""

import argparse
import itertools
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from s2s_jax.run.data import read_data
from s2s_jax.run.tokenizers import make_tokenizers
from s2s_jax.text.batches import BatchConfig, BatchPlan, Pairs
from s2s_jax.text.encoding import encode_corpus
from s2s_jax.text.sources import DataConfig
from s2s_jax.text.tokenizers import TokenizersConfig

BATCHES = 5000
_Result = TypeVar("_Result")


def write_random_lines(path: Path, count: int, *, seed: int) -> None:
    """Write lines of 10 words, frequent ones as often as in a language."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    rng.seed(seed)
    with path.open("w") as file:
        for _ in range(count):
            file.write(" ".join(rng.choices(words, cum_weights=weights, k=rng.randint(5, 15))) + "\n")


def measure(name: str, count: int, unit: str, compute: Callable[[], _Result]) -> _Result:
    """Print the seconds, those of busy cores, the speed by both, and the most memory that this process has had."""
    start, busy = time.perf_counter(), busy_seconds()
    result = compute()
    seconds, busy = time.perf_counter() - start, busy_seconds() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    speeds = f"{count / seconds:10,.0f} {unit}/s, {count / busy:10,.0f} per second of a busy core"
    print(f"{name:14} {seconds:7.1f} s {busy:7.1f} s busy {speeds}, {peak:5.2f} GB", flush=True)  # noqa: T201
    return result


def busy_seconds() -> float:
    """The processor time of this process and of those that it has started and that have ended."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def main() -> None:
    """Print one line per stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--files", default="", help="two parallel files, A,B")
    parser.add_argument("--cache", default="", help="as data.cache")
    parser.add_argument("--workers", type=int, default=0, help="as data.workers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = options.files
        if not files:
            sides = [Path(folder, name) for name in ("source", "target")]
            files = ",".join(map(str, sides))
            for seed, side in enumerate(sides):
                write_random_lines(side, options.pairs, seed=seed)
        start(DataConfig(train=files, validation="task:copy", cache=options.cache, workers=options.workers))


def start(config: DataConfig) -> None:
    """Everything that happens before the first step."""
    measure("imports", 0, "pairs", lambda: sum(range(10**6)))  # only for the memory
    with Path(config.train.split(",")[0]).open("rb") as lines:
        pairs = sum(1 for _ in lines)
    corpus = measure("read", pairs, "pairs", lambda: read_data(config, print, links=False)).training
    tokenizers = measure(
        "vocabularies",
        pairs,
        "pairs",
        lambda: make_tokenizers(TokenizersConfig(), corpus, None, copy_slots=0, cache=config.cache, print_line=print),
    )
    options = {"cache": config.cache, "workers": config.workers, "print_line": print}
    encoded = measure("ids", pairs, "pairs", lambda: Pairs(*encode_corpus(corpus, tokenizers, **options)))
    plan = measure("plan", pairs, "pairs", lambda: BatchPlan(encoded, BatchConfig(), seed=0))
    steps = range(min(BATCHES, plan.per_epoch))
    measure("first batch", 1, "batches", lambda: plan.batch(0))
    measure("batches", len(steps), "batches", lambda: sum(1 for _ in map(plan.batch, steps)))
    measure("ahead", len(steps), "batches", lambda: sum(1 for _ in plan.from_step(0, len(steps))))


if __name__ == "__main__":
    main()
