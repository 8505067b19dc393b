"""`s2s bench`: one line per measurement or count, or one JSON object at the end."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from s2s_jax.bench.h100 import count_workload, prepare_process
from s2s_jax.bench.measure import BenchConfig, compare_replicas, compare_setting, describe_machine, measure_workload
from s2s_jax.bench.profile import profile_step
from s2s_jax.bench.roofline import Roofline, measure_roofline
from s2s_jax.bench.workloads import WORKLOADS, Workload
from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.console import OutputConsole
from s2s_jax.cli.output import print_json
from s2s_jax.cli.suggestions import field_name
from s2s_jax.config import override
from s2s_jax.training.devices import keep_freed_memory


def bench_command(arguments: Arguments) -> None:
    """Measure the limit of the machine, then each workload; or count what each launches on a device."""
    options, workloads = arguments.options, _workloads(arguments)
    config = _config(arguments)
    if options.target:
        _check_target(arguments)
        _count_kernels(workloads, config, arguments)
        return
    if options.profile and config.precisions != BenchConfig().precisions:
        remedy = f"--model.precision {config.precisions[0]} in place of --precisions {options.precisions}"
        raise UsageError(f"--profile shows one precision, that of the workload; give {remedy}")
    variants = {name: _variants(workload, options.compare) for name, workload in workloads.items() if options.compare}
    keep_freed_memory()
    console = OutputConsole(stderr=options.json, soft_wrap=True, highlight=False)
    roofline = measure_roofline()
    console.print(f"{_machine_line()}; limit {_limit_line(roofline)}")
    if options.profile:
        _write_profile(workloads, Path(options.profile), arguments)
        console.print(f"page: {options.profile}")
    rows = []
    for name, workload in workloads.items() if not options.profile else ():
        console.print(", ".join([f"{name}: {workload.description}", *arguments.overrides]))
        for row in _rows(name, workload, variants.get(name, {}), arguments, config, roofline):
            rows.append(row)
            console.print("  " + _row_line(row))
    if options.json:
        gflops = {f"{precision}_gflops": value for precision, value in roofline.gflops.items()}
        limit = gflops | {"copy_gb_s": roofline.copy_gb_s}
        print_json({"machine": describe_machine(), "limit": limit, "rows": rows})


def _check_target(arguments: Arguments) -> None:
    """Refuse an option that only a measurement reads."""
    defaults = BenchConfig()
    plain = {"compare": None, "profile": None, "replicas": 0, "batches": ",".join(map(str, defaults.batches))}
    plain |= {name: getattr(defaults, name) for name in ("rounds", "against", "style", "python")}
    for name, default in plain.items():
        if (value := getattr(arguments.options, name)) != default:
            target = arguments.options.target
            raise UsageError(f"--target {target} measures no time, and does not read --{name} {value}; leave one out")


def _count_kernels(workloads: dict[str, Workload], config: BenchConfig, arguments: Arguments) -> None:
    prepare_process()
    console = OutputConsole(stderr=arguments.options.json, soft_wrap=True, highlight=False)
    rows = []
    for name, workload in workloads.items():
        console.print(", ".join([f"{name}: {workload.description}", *arguments.overrides]))
        for row in count_workload(name, workload, config):
            rows.append(row)
            console.print("  " + _kernels_line(row))
    if arguments.options.json:
        print_json({"rows": rows})


def _kernels_line(row: dict[str, Any]) -> str:
    line = f"{row['phase']} {row['precision']}: {row['kernels']:,} kernels, {row['copied_megabytes']:,.1f} MB copied, "
    line += f"CUDA graphs: {row['graphs']}, {row['temporary_megabytes']:,.1f} MB of temporaries"
    loops = [f"{loop['name']} {loop['kernels']} x {loop['turns']}" for loop in row["loops"]]
    return line + "; kernels per turn x turns: " + ", ".join(loops)


def _config(arguments: Arguments) -> BenchConfig:
    options = arguments.options
    return BenchConfig(
        phases=tuple(options.phases.split(",")),
        precisions=tuple(options.precisions.split(",")),
        batches=_whole_numbers(options.batches),
        rounds=options.rounds,
        against=options.against,
        style=options.style,
        python=options.python,
    )


def _workloads(arguments: Arguments) -> dict[str, Workload]:
    """The workloads of the command line, with its overrides."""
    for name in arguments.options.workloads:
        if name not in WORKLOADS:
            near = [known for known in WORKLOADS if known in name.upper()]
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"no workload {name!r}{hint} (there are {', '.join(WORKLOADS)})")
    return {name: override(WORKLOADS[name], *arguments.overrides) for name in arguments.options.workloads}


def _variants(workload: Workload, text: str) -> dict[str, Workload]:
    """A workload under each value of `SETTING=VALUE,VALUE`."""
    setting, equals, values = text.partition("=")
    if not equals or not values:
        raise UsageError(
            f"--compare must be SETTING=VALUE,VALUE such as scheduled_sampling.start=1.0,0.5, got {text!r}"
        )
    return {value: override(workload, f"{field_name(setting)}={value}") for value in values.split(",")}


def _rows(
    name: str,
    workload: Workload,
    variants: dict[str, Workload],
    arguments: Arguments,
    config: BenchConfig,
    roofline: Roofline,
) -> Iterator[dict[str, Any]]:
    """The measurements that the options ask for, one by one."""
    if variants:
        yield from compare_setting(name, field_name(arguments.options.compare.partition("=")[0]), variants, config)
    elif arguments.options.replicas:
        yield compare_replicas(name, workload, arguments.options.replicas, config)
    else:
        yield from measure_workload(name, workload, config, roofline)


def _write_profile(workloads: dict[str, Workload], page: Path, arguments: Arguments) -> None:
    lines = _profile_head(workloads, page, arguments.overrides)
    for name, workload in workloads.items():
        with tempfile.TemporaryDirectory() as folder:
            profile = profile_step(workload, Path(folder))
        total = sum(part.milliseconds for part in profile.parts)
        lines += [f"## {name}: {workload.description}", "", f"A step takes {profile.step_milliseconds:,.0f} ms.", ""]
        lines += ["| part | kind | ms | share |", "|---|---|---|---|"]
        lines += [
            f"| {part.part} | {part.kind} | {part.milliseconds:,.1f} | {part.milliseconds / total:.1%} |"
            for part in profile.parts
        ]
        lines += [""]
    page.write_text("\n".join(lines), encoding="utf-8")


def _profile_head(workloads: dict[str, Workload], page: Path, overrides: Sequence[str]) -> list[str]:
    """The command that made the page, and in what precision."""
    flags = [f"--{name} {value}" for name, _, value in (override.partition("=") for override in overrides)]
    command = " ".join(["s2s bench", *workloads, *flags, f"--profile {page}"])
    precisions = " and ".join(dict.fromkeys(workload.model.precision for workload in workloads.values()))
    return [
        "# Where the time of a train step goes",
        "",
        f"Made by `{command}` on {_machine_line()}.",
        f"In {precisions}, a batch of median length. Times are added over the threads that worked.",
        "",
    ]


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--batches must be whole numbers such as 1,32,100, got {text!r}") from None


def _machine_line() -> str:
    machine = describe_machine()
    return f"{machine['device']} ({machine['processor']}, {machine['cores']} cores), jax {machine['jax']}"


def _limit_line(roofline: Roofline) -> str:
    products = ", ".join(f"{value:,.0f} GFLOP/s {precision}" for precision, value in roofline.gflops.items())
    return f"{products}, copy {roofline.copy_gb_s:,.1f} GB/s"


def _row_line(row: dict[str, Any]) -> str:
    line = _setting_line if "setting" in row else _replicas_line if "replicas" in row else _phase_line
    return line(row) + f"; compiled in {row['compile_seconds']:.1f} s, {row['peak_megabytes']:,.0f} MB"


def _setting_line(row: dict[str, Any]) -> str:
    speed = f"{row['milliseconds']:,.0f} ms per step, {row['tokens_per_s']:,.0f} tokens/s"
    cost = f"{row['cost_median']:.2f} ({row['cost_min']:.2f} to {row['cost_max']:.2f})"
    return f"{row['setting']} {row['value']}: {speed}, {cost} of the first value's time"


def _replicas_line(row: dict[str, Any]) -> str:
    ratio = f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
    return (
        f"{row['replicas']} seeds at once: {row['milliseconds']:,.0f} ms per step, {ratio} times as fast as one by one"
    )


def _phase_line(row: dict[str, Any]) -> str:
    unit = "tokens" if "tokens_per_s" in row else "sentences"
    line = f"{row['phase']} {row['precision']} batch {row['batch']}: {row[unit + '_per_s']:,.1f} {unit}/s"
    line += f", {row['fraction_of_limit']:.0%} of the limit"
    if "ratio_median" in row:
        ratios = " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
        reference = f"{row['opponent']} {row['style']} {row['reference']:,.1f}"
        line += f"; {reference}, ratio {row['ratio_median']:.2f} ({ratios})"
    if "microseconds_per_step" in row:
        line += f"; {row['microseconds_per_step']:,.0f} us per step"
    if "kernels_per_step" in row:
        line += f", {row['kernels_per_step']:,.1f} kernels"
    return line
