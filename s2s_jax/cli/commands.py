"""What does each command show? It calls `s2s_jax.run` and prints; it decides nothing."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from s2s_jax import config, run
from s2s_jax.cli.arguments import Given, UsageError
from s2s_jax.cli.attention import attention
from s2s_jax.cli.bench import bench
from s2s_jax.cli.experiments import find
from s2s_jax.cli.sweep import sweep
from s2s_jax.decode.translate import Translation
from s2s_jax.evaluate.alignment import hard, to_pharaoh
from s2s_jax.text.lines import read_lines
from s2s_jax.text.report import Report
from s2s_jax.text.sources import DataConfig, read_split


def train(given: Given) -> None:
    """Train, or say what can be set."""
    if given.options.experiment is None:
        if not given.options.help:
            raise UsageError("train needs an EXPERIMENT: a Python file with experiment(), its name, or a run")
        _show_train_help(None)
        return
    experiment, directory = find(given.options.experiment, given.options.run)
    experiment = config.override(experiment, *given.overrides)
    if given.options.help:
        _show_train_help(experiment)
        return
    console = Console(stderr=given.options.json, soft_wrap=True, highlight=False)
    profile = Path(given.options.profile) if given.options.profile else None
    state = run.train(experiment, directory, console, profile=profile)
    if given.options.json:
        last = {record.pop("kind"): record for record in run.newest_metrics(directory)}
        _json({"run": str(directory), "step": int(state.step), **last})
    else:
        print(f"the run is {directory}; next: echo 'your line' | s2s translate {directory}")


def _show_train_help(experiment: Any) -> None:
    print("usage: s2s train EXPERIMENT [--run DIR] [--profile DIR] [--json] [--SETTING VALUE ...]\n")
    print("EXPERIMENT is a Python file with experiment(), the name of one in experiments/, or a run to go on with.")
    print("A run that exists is resumed. With an EXPERIMENT the values below are its own, else the defaults.\n")
    for setting in config.settings(experiment or config.Experiment()):
        print(f"  --{setting.name} {json.dumps(setting.value)}\n        {setting.meaning}")


def translate(given: Given) -> None:
    """A line of output for each line of input; with n-best, or as JSON, all that is known of it."""
    options = given.options
    if options.n_best < 1:
        raise UsageError(f"--n-best must be positive, got {options.n_best}")
    changes = _changes(given)
    if options.n_best > 1 and options.beam is None:
        changes = [f"search.beam={options.n_best}", *changes]
    trained = _load(given, changes)
    found = trained.experiment.search.hypotheses
    if options.n_best > found:
        raise UsageError(
            f"--n-best {options.n_best} needs as many hypotheses, but the search gives {found}; widen --beam"
        )
    for translation in _translations(trained, _input_lines(options.input)):
        if options.json:
            _json(_translation_record(translation, options.n_best))
        elif options.n_best == 1:
            _line(translation.text)
        else:
            _n_best(translation, options.n_best)


def _translations(trained: run.Trained, lines: Iterator[str]) -> Iterator[Translation]:
    """All at once from a file; line by line from a person who types."""
    ready = run.translator(trained)
    if not sys.stdin.isatty():
        return ready.translate(trained.params, lines)
    typed = enumerate(lines)
    return (answer for number, line in typed for answer in ready.translate(trained.params, [line], first=number))


def _n_best(translation: Translation, count: int) -> None:
    for hypothesis in translation.hypotheses[:count]:
        _line(f"{hypothesis.score:.4f}\t{hypothesis.text}")
    if not translation.hypotheses:
        _line("")


def _translation_record(translation: Translation, count: int) -> dict[str, Any]:
    return {
        "source": translation.source,
        "translation": translation.text,
        "source_tokens": translation.source_tokens,
        "hypotheses": [
            {**hypothesis._asdict(), "alignment": _rounded(hypothesis.alignment)}
            for hypothesis in translation.hypotheses[:count]
        ],
    }


def evaluate(given: Given) -> None:
    """The numbers of a split."""
    trained = _load(given, _changes(given))
    found = run.evaluate_split(trained, given.options.split)
    found = {"run": given.options.run, "step": trained.step, "split": given.options.split, **found}
    if given.options.json:
        _json(found)
        return
    for name, value in found.items():
        if name == "by_source_length":
            for row in value:
                print(
                    f"  {row['label']:>8} tokens: {row['sources']:6} sources, exact match {_number(row['exact_match'])}"
                )
        elif value is not None:
            print(f"{name.replace('_', ' ')}: {_number(value)}")


def score(given: Given) -> None:
    """The log-probability of each pair, in nats, before it."""
    trained = _load(given, _changes(given))
    spec = given.options.input or "/dev/stdin"
    examples, _ = read_split(DataConfig(train=spec, test=spec, validation=spec), "test")
    for pair in run.score_pairs(trained, examples):
        total = float(pair.log_probs.sum())
        if given.options.json:
            _json(
                {
                    "source": pair.example.source,
                    "target": pair.example.target,
                    "log_probability": total,
                    "tokens": pair.tokens,
                    "log_probs": pair.log_probs.tolist(),
                }
            )
        else:
            _line(f"{total:.4f}\t{pair.example.source}\t{pair.example.target}")


def align(given: Given) -> None:
    """A picture of alignments, and the same as JSON beside it."""
    options = given.options
    if options.count < 1:
        raise UsageError(f"--count must be positive, got {options.count}")
    trained = _load(given, _changes(given))
    if trained.experiment.model.attention.score == "none":
        raise UsageError(f"{options.run} has no attention (model.attention.score=none), so there is nothing to draw")
    if options.input:
        lines = list(_input_lines(options.input))[: options.count]
        pairs = run.translated_pairs(trained, lines)
    else:
        examples, _ = read_split(trained.experiment.data, options.split)
        pairs = list(run.score_pairs(trained, examples[: options.count]))
    if not pairs:
        raise UsageError("there is no line to draw; every line given is blank")
    path = run.align(trained, pairs, Path(options.output or Path(options.run) / "alignment.png"))
    records = [
        {
            "source_tokens": pair.source_tokens,
            "target_tokens": pair.tokens,
            "alignment": _rounded(pair.alignment),
            "pharaoh": to_pharaoh(hard(pair.alignment)),
        }
        for pair in pairs
    ]
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps(records, ensure_ascii=False) + "\n", encoding="utf-8")
    found = {"picture": str(path), "alignments": str(beside), "aer": run.alignment_error(trained, pairs)}
    if options.json:
        _json({**found, "pairs": records})
        return
    print(f"picture: {path}\nalignments: {beside}")
    print(f"try your own: echo '{pairs[0].example.source}' | s2s translate {options.run}")


def info(given: Given) -> None:
    """What a run is."""
    if given.overrides:
        raise UsageError(f"info takes no settings, got --{given.overrides[0]}")
    found = run.info(Path(given.options.run))
    if given.options.json:
        _json(found)
        return
    for line in found["refused"]:
        print(f"refused: {line}", file=sys.stderr)
    for name in ("step", "best_step", "parameters", "parameters_digest", "checkpoints"):
        print(f"{name.replace('_', ' ')}: {_number(found[name])}")
    for name, value in found["facts"].items():
        print(f"{name.replace('_', ' ')}: {value}")


COMMANDS: dict[str, Callable[[Given], int | None]] = {  # an exit code, or none for 0
    "train": train,
    "translate": translate,
    "evaluate": evaluate,
    "score": score,
    "align": align,
    "info": info,
    "sweep": sweep,
    "attention": attention,
    "bench": bench,
}


def _changes(given: Given) -> list[str]:
    beam = getattr(given.options, "beam", None)
    return [*([] if beam is None else [f"search.beam={beam}"]), *given.overrides]


def _load(given: Given, changes: list[str]) -> run.Trained:
    for change in changes:
        if change.replace("-", "_").startswith(("model.", "text.", "optimiser.")):
            raise UsageError(f"{change.split('=')[0]} was settled when the run was trained; it can be set in s2s train")
    trained = run.load(Path(given.options.run), changes=changes)
    for line in trained.refused:
        print(f"refused: {line}; step {trained.step} is used", file=sys.stderr)
    return trained


def _input_lines(name: str | None) -> Iterator[str]:
    """Lines of a file, or of stdin as they come."""
    if name is not None:
        yield from (line or "" for line in read_lines(Path(name), Report()))
        return
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            yield raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"stdin:{number}: byte {error.start} is not UTF-8; convert it: iconv -t utf-8.") from None


def _line(text: str) -> None:
    """A line of UTF-8 on stdout, whatever the locale says; a line break inside would shift all that follow."""
    sys.stdout.buffer.write(text.replace("\n", " ").encode() + b"\n")
    if sys.stdout.isatty() or sys.stdin.isatty():
        sys.stdout.buffer.flush()


def _json(record: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(record, ensure_ascii=False, default=_plain).encode() + b"\n")


def _plain(value: Any) -> Any:
    """What JSON has no word for: a token count of NumPy, a path."""
    return value.item() if hasattr(value, "item") else str(value)


def _rounded(alignment: Iterable) -> list[list[float]]:
    return [[round(float(weight), 5) for weight in row] for row in alignment]


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
