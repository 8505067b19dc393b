"""`s2s evaluate`, `align` and `info`: they call `s2s_jax.run` and print."""

import itertools
import json
import sys
from pathlib import Path

from s2s_jax import run
from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.inputs import check_trained_run, feature_columns, lines_of, load_run, with_features
from s2s_jax.cli.output import errors_name, formatted, print_json
from s2s_jax.evaluate.alignment import alignment_record
from s2s_jax.text.files import raw_lines
from s2s_jax.text.sources import read_split


def evaluate_command(arguments: Arguments) -> None:
    """Print the metrics of a split."""
    loaded = load_run(arguments)
    metrics = loaded.evaluate(arguments.options.split)
    for note in metrics.get("notes", ()):
        print(f"note: {note}", file=sys.stderr)
    about = {"run": arguments.options.run, "step": loaded.step}
    combined = {"averaged": loaded.averaged, "with": arguments.options.ensemble}
    metrics = {**about, **{name: value for name, value in combined.items() if value}, **metrics}
    if arguments.options.json:
        print_json(metrics)
        return
    for name, value in metrics.items():
        if name == "by_source_length":
            for row in value:
                counts = f"{row['sources']:6} sources, exact match {formatted(row['exact_match'])}"
                print(f"  {row['label']:>8} tokens: {counts}")
        elif value is not None and name != "notes":
            print(f"{name.replace('_', ' ')}: {formatted(value)}")


def align_command(arguments: Arguments) -> None:
    """Draw alignments, and write them as JSON beside the picture."""
    options = arguments.options
    if options.count < 1:
        raise UsageError(f"--count must be positive, got {options.count}")
    if options.input and options.split:
        raise UsageError("--input and --split both name what to draw; leave one of them out")
    loaded = load_run(arguments)
    attention = loaded.experiment.model.attention
    if not attention.attends:
        raise UsageError(
            f"{options.run} has no attention (model.attention.score={attention.score}), so there is nothing to draw"
        )
    if options.input:
        policy = loaded.experiment.data.encoding_errors
        lines = lines_of(raw_lines(Path(options.input)), options.input, encoding_errors=policy)
        inputs = with_features(lines, options.input, feature_columns(loaded.experiment.data))
        pairs = run.own_pairs(loaded, itertools.islice(inputs, options.count))
    else:
        examples, _ = read_split(loaded.experiment.data, options.split or "test")
        pairs = list(loaded.score(examples[: options.count]))
    if not pairs:
        raise UsageError("there is nothing to draw: every line is blank")
    output = Path(options.output or Path(options.run) / "alignment.png")
    records = [alignment_record(pair) for pair in pairs]
    with errors_name(str(output)):
        picture = run.draw(loaded, pairs, output)
        beside = picture.with_suffix(".json")
        beside.write_text(json.dumps(records, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.json:
        files = {"picture": str(picture), "alignments": str(beside)}
        print_json({**files, "aer": loaded.alignment_error(pairs), "pairs": records})
        return
    print(f"picture: {picture}\nalignments: {beside}")
    print(f"try your own: echo '{pairs[0].example.source}' | s2s translate {options.run}")


def info_command(arguments: Arguments) -> None:
    """Print step, parameters, data and checkpoints of a run."""
    check_trained_run(arguments.options.run)
    facts = run.info(Path(arguments.options.run))
    if arguments.options.json:
        print_json(facts)
        return
    for line in facts["refused"]:
        print(f"refused: {line}", file=sys.stderr)
    for name in ("step", "best_step", "parameters", "trained_parameters", "parameters_digest", "checkpoints"):
        print(f"{name.replace('_', ' ')}: {formatted(facts[name])}")
    for start in facts["starts"]:
        commit = start["commit"] or "not in a git repository"
        print(f"started at step {start['step']:,}: {start['time']} on {start['host']}, {start['devices']}, {commit}")
    for name, value in facts["facts"].items():
        print(f"{name.replace('_', ' ')}: {value}")
    for path, shape in facts["shapes"].items():
        print(f"  {path} {','.join(map(str, shape))}")
