"""What does a benchmark show? A table as it grows, or one JSON object at the end."""

import difflib
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from s2s_jax.bench.limit import Limit, measured
from s2s_jax.bench.measure import BenchConfig, machine, rows
from s2s_jax.bench.works import WORKS
from s2s_jax.cli.arguments import Given, UsageError
from s2s_jax.train.devices import keep_freed_memory


def bench(given: Given) -> None:
    """Measure the limit, then each work."""
    options = given.options
    if given.overrides:
        raise UsageError(f"bench takes no settings, got --{given.overrides[0]}; see s2s bench --help")
    for name in options.works:
        if name not in WORKS:
            near = difflib.get_close_matches(name.upper(), WORKS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"no work {name!r}{hint} (there are {', '.join(WORKS)})")
    config = BenchConfig(
        phases=tuple(options.phases.split(",")),
        precisions=tuple(options.precisions.split(",")),
        batches=_whole_numbers(options.batches),
        rounds=options.rounds,
        against=options.against,
        style=options.style,
        python=options.python,
    )
    keep_freed_memory()
    console = Console(stderr=options.json, soft_wrap=True, highlight=False)
    limit = measured()
    console.print(f"{_described()}; limit {_limit(limit)}")
    found = []
    for name in options.works:
        console.print(f"{name}: {WORKS[name].meaning}")
        for row in rows(name, WORKS[name], config, limit):
            found.append(row)
            console.print("  " + _in_words(row))
    if options.json:
        gflops = {f"{precision}_gflops": value for precision, value in limit.gflops.items()}
        print(json.dumps({"machine": machine(), "limit": gflops | {"copy_gb_s": limit.copy_gb_s}, "rows": found}))
    else:
        console.print(_table(found))


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--batches must be whole numbers such as 1,32,100, got {text!r}") from None


def _described() -> str:
    about = machine()
    return f"{about['device']} ({about['processor']}, {about['cores']} cores), jax {about['jax']}"


def _limit(limit: Limit) -> str:
    products = ", ".join(f"{value:,.0f} GFLOP/s {precision}" for precision, value in limit.gflops.items())
    return f"{products}, copy {limit.copy_gb_s:,.1f} GB/s"


def _speed(row: dict[str, Any]) -> tuple[float, str]:
    return (row["tokens_per_s"], "tokens/s") if "tokens_per_s" in row else (row["sentences_per_s"], "sentences/s")


def _in_words(row: dict[str, Any]) -> str:
    speed, unit = _speed(row)
    words = f"{row['phase']} {row['precision']} batch {row['batch']}: {speed:,.1f} {unit}"
    words += f", {row['fraction_of_limit']:.0%} of the limit"
    if "ratio_median" in row:
        pairs = " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
        words += f"; {row['opponent']} {row['style']} {row['reference']:,.1f}, ratios {pairs}"
    return words


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("work", "phase", "precision", "batch", "ours", "of limit", "reference", "ratio min median max"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("us a step", "compile s", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found:
        speed, unit = _speed(row)
        ratio = [f"{row[name]:.2f}" for name in ("ratio_min", "ratio_median", "ratio_max") if name in row]
        table.add_row(
            *(str(row[name]) for name in ("work", "phase", "precision", "batch")),
            f"{speed:,.1f} {unit}",
            f"{row['fraction_of_limit']:.0%}",
            f"{row['reference']:,.1f}" if "reference" in row else "",
            " ".join(ratio),
            f"{row['microseconds_per_step']:,.0f}" if "microseconds_per_step" in row else "",
            f"{row['compile_seconds']:.1f}",
            f"{row['peak_megabytes']:,.0f}",
        )
    return table
