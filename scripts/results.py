"""Write docs/results.md from the runs: published numbers beside ours, with digests, seeds, commits and minutes.

Command: python scripts/results.py [NAME[:FUNCTION][@LABEL]=FOLDER ...]
Each argument reads the finished trials of a sweep into docs/records/, from where the page is written:
published/scan=runs/sweeps/scan, published/scan:rnn=runs/sweeps/scan-rnn. A LABEL tells apart what is recorded of the
same runs, such as another search: published/enja@greedy=runs/sweeps/enja. Without arguments the page is written again.
"""

import argparse
import json
import statistics
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import s2s_jax as s2s
from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.imports import import_once

HERE = Path(__file__).parent
EXPERIMENTS = HERE.parent / "experiments"
RECORDS = HERE.parent / "docs" / "records"
TEMPLATE = HERE / "results.md"  # the page without the sections that are made of records
PAGE = HERE.parent / "docs" / "results.md"
FOLDERS = ("published", "claims")


def main() -> None:
    """Record the sweeps that are given, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweeps", nargs="*", metavar="NAME[:FUNCTION][@LABEL]=FOLDER")
    for argument in parser.parse_args().sweeps:
        name, equals, folder = argument.partition("=")
        if not equals or not (Path(folder) / "trials").is_dir():
            parser.error(f"{argument}: wanted NAME=FOLDER with the folder of a sweep, which has a folder `trials`")
        write_record(name, Path(folder))
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")


def write_record(name: str, folder: Path) -> None:
    """Record the finished trials of a sweep; what was recorded of other points and seeds stays."""
    name, _, label = name.partition("@")
    file, _, function = name.partition(":")
    sweep_of(file, function)  # it exists
    path = RECORDS / f"{'-'.join(filter(None, (file.replace('/', '-'), function, label)))}.json"
    known = json.loads(path.read_text())["trials"] if path.exists() else []
    found = [trial_record(trial) for trial in sorted((folder / "trials").iterdir()) if is_done(trial)]
    newest = {(*trial["point"].items(), trial["seed"]): trial for trial in [*known, *found]}
    trials = sorted(newest.values(), key=lambda one: one["trial"])
    RECORDS.mkdir(exist_ok=True)
    record = {"file": file, "function": function, "label": label, "trials": trials}
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def is_done(trial: Path) -> bool:
    """Whether a trial has been trained and scored."""
    return (trial / "scores.json").exists() and json.loads((trial / "outcome.json").read_text())["status"] == "done"


def trial_record(trial: Path) -> dict[str, Any]:
    """What the page needs of a trial."""
    read = {name: json.loads((trial / f"{name}.json").read_text()) for name in ("trial", "scores", "translations")}
    starts = json.loads((trial / "run" / "environment.json").read_text())["starts"]
    outcome, inputs = json.loads((trial / "outcome.json").read_text()), read["translations"]["inputs"]
    return {
        "trial": trial.name,
        "point": read["trial"]["point"],
        "seed": read["trial"]["seed"],
        "metrics": {name: round(value, 6) for name, value in read["scores"]["metrics"].items() if value is not None},
        "split": inputs["split"],
        "sources": len(read["translations"]["sources"]),
        "beam": inputs["search"]["beam"],
        "parameters": read["scores"]["parameters"],
        "best_step": read["scores"]["best_step"],
        "digest": inputs["parameters"],
        "commit": starts[-1]["s2s_jax_commit"],
        "date": starts[0]["time"][:10],
        "minutes": round(outcome["seconds"] / 60, 1),
        "devices": starts[-1]["devices"],
    }


def sweep_of(file: str, function: str) -> s2s.Sweep:
    """The sweep of a file below experiments/."""
    return getattr(import_once(str(EXPERIMENTS / f"{file}.py")), function or "sweep")()


def page() -> str:
    """The text of docs/results.md."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RECORDS.glob("*.json"))]
    by_file: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(records, key=lambda one: (FOLDERS.index(one["file"].split("/")[0]), one["file"])):
        by_file.setdefault(record["file"], []).append(record)
    sections = ["\n\n".join(section(file, of_file)) for file, of_file in by_file.items()]
    return TEMPLATE.read_text(encoding="utf-8").replace("<!-- sections -->", "\n\n".join(sections))


def section(file: str, records: list[dict[str, Any]]) -> Iterator[str]:
    """The paragraphs about one file: its claim, its command, and a table for each of its records."""
    title, *rest = (import_once(str(EXPERIMENTS / f"{file}.py")).__doc__ or "").strip().split("\n")
    facts = facts_of(" ".join(rest))
    yield f"## {title.rstrip('.')}"
    yield wrapped(facts["Claim"][:1].upper() + facts["Claim"][1:])
    command, _, variants = facts["Command"].partition(" (")
    yield wrapped(f"`{command}`{variants and f' ({variants}'} in [{file}.py](../experiments/{file}.py).")
    if "Source" in facts:
        yield wrapped(f"Published: {facts['Source']} What may differ: {facts['May differ']}")
    for record in records:
        yield from tables(record)
    yield "\n".join(["<details><summary>Runs</summary>", "", *run_rows(records), "", "</details>"])


def wrapped(text: str) -> str:
    """A paragraph of the page."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def facts_of(text: str) -> dict[str, str]:
    """The facts of a file's docstring by their names."""
    names = ("Claim", "Source", "May differ", "Command", "Hardware and time", "Expect", "Seen")
    starts = sorted((text.index(f"{name}: "), name) for name in names if f"{name}: " in text)
    ends = [*(start for start, _ in starts[1:]), len(text)]
    pairs = zip(starts, ends, strict=True)
    return {name: " ".join(text[start + len(name) + 2 : end].split()) for (start, name), end in pairs}


def tables(record: dict[str, Any]) -> Iterator[str]:
    """The table of a record: for each label the mean over seeds, and how it stands to the published number."""
    sweep = sweep_of(record["file"], record["function"])
    of_label = {label: matching(record, sweep.compare, label) for label in sweep.labels()[sweep.compare]}
    of_label = {label: trials for label, trials in of_label.items() if trials}
    trials = [trial for found in of_label.values() for trial in found]
    names = " ".join(filter(None, (record["function"], record["label"]))) or "main sweep"
    sources = " or ".join(f"{count:,}" for count in sorted({trial["sources"] for trial in trials}))
    read = f"{sources} sources of {trials[0]['split']}, beam {trials[0]['beam']}"
    yield f"**{names.replace('_', ' ')}** ({read}):"
    published = {(one.label, one.metric): one for one in sweep.published}
    rows = [
        [label, *(cell(found, metric, published.get((label, metric))) for metric in sweep.metrics), str(len(found))]
        for label, found in of_label.items()
    ]
    head = [sweep.compare, *(METRICS[metric].title for metric in sweep.metrics), "seeds"]
    yield "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def matching(record: dict[str, Any], axis: str, label: str) -> list[dict[str, Any]]:
    """The trials of a record with a label."""
    return [trial for trial in record["trials"] if trial["point"][axis] == label]


def cell(trials: list[dict[str, Any]], metric: str, published: s2s.Published | None) -> str:
    """The mean of a metric with its standard deviation over seeds, and how it stands to a published number."""
    values = [trial["metrics"][metric] for trial in trials if metric in trial["metrics"]]
    if not values:
        return "–"
    mean, spread = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None
    text = number(mean) + (f" ± {number(spread)}" if spread is not None else "")
    if published is None:
        return text
    return f"{text} (published {number(published.value)}: {published.standing(mean)})"


def number(value: float) -> str:
    """A number with as many digits as mean something."""
    return f"{value:.2f}" if abs(value) >= 2 else f"{value:.4f}"


def run_rows(records: list[dict[str, Any]]) -> list[str]:
    """The rows of the table of runs."""
    head = ["run", "seed", "parameters", "step", "digest", "commit", "minutes", "date"]
    rows = [
        [
            ", ".join(filter(None, [*trial["point"].values(), record["function"], record["label"]])),
            str(trial["seed"]),
            f"{trial['parameters']:,}",
            f"{trial['best_step']:,}",
            f"`{trial['digest'][:12]}`",
            f"`{(trial['commit'] or 'unknown')[:9]}`",
            f"{trial['minutes']:.0f}",
            trial["date"],
        ]
        for record in records
        for trial in record["trials"]
    ]
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]


if __name__ == "__main__":
    main()
