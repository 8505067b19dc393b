"""Measure how many pairs per second become ids: line by line, all at once, and from the cache of `data.cache`.

    python scripts/encoding_speed.py [--pairs 200000] [--files train.en,train.de]

Without files the pairs are made of random words, 20 per line.
"""

import argparse
import itertools
import os
import random
import tempfile
import time
from collections.abc import Callable
from typing import Any

from s2s_jax.text.encoding import encode_lines
from s2s_jax.text.sources import DataConfig, read_split
from s2s_jax.text.subwords import Subwords
from s2s_jax.text.tokenizers import append_eos


def random_lines(count: int) -> list[str]:
    """Lines of 20 words, frequent ones as often as in a language."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    return [" ".join(rng.choices(words, cum_weights=weights, k=20)) for _ in range(count)]


def measure(name: str, pairs: int, compute: Callable[[], Any]) -> None:
    """Print the pairs per second, and those per second of a core that was busy."""
    wall, busy = time.perf_counter(), time.process_time()
    compute()
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    print(f"{name:12} {pairs / wall:10,.0f} pairs/s {pairs / busy:10,.0f} pairs/s per busy core")  # noqa: T201


def main() -> None:
    """Print one line per way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--files", default="", help="two parallel files, A,B")
    arguments = parser.parse_args()
    if arguments.files:
        examples = read_split(DataConfig(train=arguments.files), "train")[0][: arguments.pairs]
        sides = [[example.source for example in examples], [example.target for example in examples]]
    else:
        sides = [random_lines(arguments.pairs), random_lines(arguments.pairs)]
    tokenizer, pairs = Subwords.train(itertools.chain(*(side[:10_000] for side in sides)), size=8000), len(sides[0])
    print(f"{pairs:,} pairs, {os.cpu_count()} cores")  # noqa: T201
    measure("line by line", pairs, lambda: [[append_eos(tokenizer.encode(line)) for line in side] for side in sides])
    measure("all at once", pairs, lambda: [encode_lines(tokenizer, side) for side in sides])
    with tempfile.TemporaryDirectory() as cache:
        measure("to cache", pairs, lambda: [encode_lines(tokenizer, side, cache=cache) for side in sides])
        measure("from cache", pairs, lambda: [encode_lines(tokenizer, side, cache=cache) for side in sides])


if __name__ == "__main__":
    main()
