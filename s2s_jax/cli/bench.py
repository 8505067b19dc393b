"""What does a benchmark show? A line a measurement, or one JSON object at the end."""

import difflib
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from s2s_jax.bench.measure import BenchConfig, machine, replicated, rows, varied
from s2s_jax.bench.profile import profiled
from s2s_jax.bench.roofline import Roofline, measured
from s2s_jax.bench.workloads import WORKLOADS, Workload
from s2s_jax.cli.arguments import Given, UsageError
from s2s_jax.config import override
from s2s_jax.train.devices import keep_freed_memory


def bench(given: Given) -> None:
    """Measure the limit, then each work."""
    options, works = given.options, _works(given)
    config = BenchConfig(
        phases=tuple(options.phases.split(",")),
        precisions=tuple(options.precisions.split(",")),
        batches=_whole_numbers(options.batches),
        rounds=options.rounds,
        against=options.against,
        style=options.style,
        python=options.python,
    )
    variants = {name: _variants(work, options.compare) for name, work in works.items()} if options.compare else {}
    keep_freed_memory()
    console = Console(stderr=options.json, soft_wrap=True, highlight=False)
    limit = measured()
    console.print(f"{_described()}; limit {_limit(limit)}")
    if options.profile:
        _write_where(works, Path(options.profile), _described())
        return
    found = []
    for name, work in works.items():
        console.print(", ".join([f"{name}: {work.meaning}", *given.overrides]))
        if options.compare:
            lines = varied(name, options.compare.partition("=")[0], variants[name], config)
        elif options.replicas:
            lines = iter([replicated(name, work, options.replicas, config)])
        else:
            lines = rows(name, work, config, limit)
        for row in lines:
            found.append(row)
            console.print("  " + _in_words(row))
    if options.json:
        gflops = {f"{precision}_gflops": value for precision, value in limit.gflops.items()}
        print(json.dumps({"machine": machine(), "limit": gflops | {"copy_gb_s": limit.copy_gb_s}, "rows": found}))


def _works(given: Given) -> dict[str, Workload]:
    """The works asked for, with the settings asked for."""
    for name in given.options.works:
        if name not in WORKLOADS:
            near = difflib.get_close_matches(name.upper(), WORKLOADS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"no work {name!r}{hint} (there are {', '.join(WORKLOADS)})")
    return {name: override(WORKLOADS[name], *given.overrides) for name in given.options.works}


def _variants(work: Workload, words: str) -> dict[str, Workload]:
    """A work under each value of `SETTING=VALUE,VALUE`."""
    setting, equals, values = words.partition("=")
    if not equals or not values:
        raise UsageError(
            f"--compare must be SETTING=VALUE,VALUE such as scheduled_sampling.start=1.0,0.5, got {words!r}"
        )
    return {value: override(work, f"{setting}={value}") for value in values.split(",")}


def _write_where(works: dict[str, Workload], page: Path, machine: str) -> None:
    lines = [
        "# Where a training step goes",
        "",
        f"Made by `s2s bench {' '.join(works)} --profile {page}` on {machine}.",
    ]
    lines += ["Float32, a batch of middling length. Times are added over the threads that worked.", ""]
    for name, work in works.items():
        with tempfile.TemporaryDirectory() as folder:
            step, spent = profiled(work, Path(folder))
        total = sum(milliseconds for _, _, milliseconds in spent)
        lines += [f"## {name}: {work.meaning}", "", f"A step takes {step:,.0f} ms.", ""]
        lines += ["| part | kind | ms | share |", "|---|---|---|---|"]
        lines += [f"| {part} | {kind} | {spent:,.1f} | {spent / total:.1%} |" for part, kind, spent in spent]
        lines += [""]
    page.write_text("\n".join(lines), encoding="utf-8")
    print(f"page: {page}")


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--batches must be whole numbers such as 1,32,100, got {text!r}") from None


def _described() -> str:
    about = machine()
    return f"{about['device']} ({about['processor']}, {about['cores']} cores), jax {about['jax']}"


def _limit(limit: Roofline) -> str:
    products = ", ".join(f"{value:,.0f} GFLOP/s {precision}" for precision, value in limit.gflops.items())
    return f"{products}, copy {limit.copy_gb_s:,.1f} GB/s"


def _speed(row: dict[str, Any]) -> tuple[float, str]:
    return (row["tokens_per_s"], "tokens/s") if "tokens_per_s" in row else (row["sentences_per_s"], "sentences/s")


def _in_words(row: dict[str, Any]) -> str:
    kind = _cost if "setting" in row else _replicas if "replicas" in row else _plain
    return kind(row) + f"; compiled in {row['compile_seconds']:.1f} s, {row['peak_megabytes']:,.0f} MB"


def _cost(row: dict[str, Any]) -> str:
    words = (
        f"{row['setting']} {row['value']}: {row['milliseconds']:,.0f} ms a step, {row['tokens_per_s']:,.0f} tokens/s"
    )
    return words + f", {row['cost_median']:.2f} ({row['cost_min']:.2f} to {row['cost_max']:.2f}) of the first's time"


def _replicas(row: dict[str, Any]) -> str:
    words = f"{row['replicas']} seeds at once: {row['milliseconds']:,.0f} ms a step, against one by one"
    return words + f" {row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"


def _plain(row: dict[str, Any]) -> str:
    speed, unit = _speed(row)
    words = f"{row['phase']} {row['precision']} batch {row['batch']}: {speed:,.1f} {unit}"
    words += f", {row['fraction_of_limit']:.0%} of the limit"
    if "ratio_median" in row:
        pairs = " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
        words += (
            f"; {row['opponent']} {row['style']} {row['reference']:,.1f}, ratio {row['ratio_median']:.2f} ({pairs})"
        )
    if "microseconds_per_step" in row:
        words += f"; {row['microseconds_per_step']:,.0f} us a step"
    if "kernels_per_step" in row:
        words += f", {row['kernels_per_step']:,.1f} kernels"
    return words
