"""Where do the pairs come from, and which of them go on?

One setting names a source: `task:NAME`, `tfds:NAME`, a TSV or JSON-lines file, two parallel files joined by a comma, or
`lines:FILE`, targets without sources.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from s2s_jax.text import synthetic_tasks
from s2s_jax.text.data_report import DataReport
from s2s_jax.text.example import Example
from s2s_jax.text.files import POLICIES, has_control, is_blank, read_lines
from s2s_jax.text.pairs import is_json, is_parallel, json_pair, links_of, tsv_pair
from s2s_jax.validation import at_least, check_fields, one_of

SPLITS = ("train", "validation", "test")
ALONE = "lines:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What to learn from and what to measure on."""

    train: str = ""
    """task:NAME, tfds:NAME[/CONFIG][@SPLIT], one TSV or JSON-lines file, or two parallel files as A,B; plain or .gz.
    Or lines:FILE: each line is a target, and all sources are empty, for a language model.
    """
    validation: str = ""
    """The same for validation; empty: the validation split of a task: or tfds: source."""
    test: str = ""
    """The same for the final test; empty: the test split of a task: or tfds: source, else the validation data."""
    source: str = ""
    """Name of the source feature (tfds:), field (JSON lines; default source) or column number (TSV; default 1)."""
    target: str = ""
    """Name of the target feature (tfds:), field (JSON lines; default target) or column number (TSV; default 2)."""
    alignment: str = ""
    """Which words of a training pair belong together: a file of `i-j` pairs (Pharaoh), source-target, from 0, a line a
    pair of data.train, which must be a TSV file or two parallel ones; plain or .gz."""
    directory: str = ""
    """Folder in which tfds: sets are kept; empty for TFDS' own."""
    manual_dir: str = ""
    """Folder that holds a tfds: set's own files, for machines without a network."""
    train_size: int = 20_000
    """Training pairs that a made-up task makes."""
    eval_size: int = 1000
    """Validation pairs, and as many test pairs, that a made-up task makes."""
    lengths: tuple[int, int] = (0, 0)
    """Shortest and longest item of a made-up task, in its symbols; 0 for the task's own."""
    test_lengths: tuple[int, int] = (0, 0)
    """The same for its test items alone, to test on longer ones than were trained on; 0 for data.lengths."""
    seed: int = 0
    """Seed of a made-up task's items."""
    blank_lines: str = "drop"
    """What to do with a training pair one side of which is blank: drop, keep or error."""
    control_characters: str = "drop"
    """What to do with a training pair that holds control characters: drop or keep."""
    encoding_errors: str = "strict"
    """What to do with a line that is not UTF-8: strict (refuse), replace (by U+FFFD) or skip."""
    max_length: int = 0
    """Longest training line in tokens, either side; 0 for no bound."""
    too_long: str = "error"
    """Training pairs over max_length: error (refuse where they are over 5 %, else drop), drop or truncate."""

    def __post_init__(self):
        check_fields(self, "data")
        one_of("data.blank_lines", self.blank_lines, ("drop", "keep", "error"))
        one_of("data.control_characters", self.control_characters, ("drop", "keep"))
        one_of("data.encoding_errors", self.encoding_errors, POLICIES)
        one_of("data.too_long", self.too_long, ("error", "drop", "truncate"))
        at_least("data.train_size", self.train_size, 1)
        at_least("data.eval_size", self.eval_size, 1)
        at_least("data.max_length", self.max_length, 0)

    def spec(self, split: str) -> str:
        """The source of a split: its own setting, or the training source where that has splits.

        Raises:
            ValueError: there is none.
        """
        one_of("split", split, SPLITS)
        if not self.train:
            raise ValueError("data.train is empty; name a source: task:dates, tfds:NAME, pairs.tsv or a.txt,b.txt.")
        own = {"train": self.train, "validation": self.validation, "test": self.test}[split]
        if own or self.train.startswith(("task:", "tfds:")):
            return own or self.train.split("@")[0]
        if split == "test" and self.validation:
            return self.validation
        raise ValueError(f"data.{split} is empty; name a file of pairs like data.train={self.train}.")


def read_split(config: DataConfig, split: str) -> tuple[list[Example], DataReport]:
    """All pairs of a split that can be used, and what was found on the way.

    Training pairs are filtered as the config says; validation and test pairs never are: every line counts.

    Raises:
        FileNotFoundError, ValueError: with file and line where data is at fault.
    """
    report = DataReport()
    spec = config.spec(split)
    kept = []
    for example, place in _placed(spec, split, config, report):
        report.read += 1
        if split != "train" or _usable(example, place, config, report):
            kept.append(example)
    report.kept = len(kept)
    if not kept:
        reasons = "; ".join(report.lines()[1:]) or "it is empty"
        raise ValueError(f"data.{split}={spec}: 0 of {report.read} pairs left: {reasons}.")
    return kept, report


Placed = tuple[Example, str]  # a pair with the place it stands at


def _placed(spec: str, split: str, config: DataConfig, report: DataReport) -> Iterator[Placed]:
    """Each pair of a source with the place it stands at."""
    aligned = split == "train" and config.alignment
    if aligned:
        _demand_lines(spec, config)
    if spec.startswith("task:"):
        found = _numbered(_made(spec.removeprefix("task:"), split, config), spec)
    elif spec.startswith("tfds:"):
        from s2s_jax.text import tfds  # takes seconds, and only these sources need it

        folders = {"manual_directory": config.manual_dir, "data_directory": config.directory}
        read = tfds.read(spec, split=split, source=config.source, target=config.target, **folders)
        found = _numbered(read, f"{spec}@{split}")
    elif spec.startswith(ALONE):
        found = _alone(Path(spec.removeprefix(ALONE)), config, report)
    elif is_parallel(spec):
        found = _parallel(spec, config, report)
    elif is_json(Path(spec)):
        found = _json_lines(Path(spec), config, report)
    else:
        found = _tsv(Path(spec), config, report)
    if aligned:
        found = _aligned(found, config, report)
    return (placed for placed in found if placed is not None)


def _demand_lines(spec: str, config: DataConfig) -> None:
    """Refuse a file of alignments beside what has its own, or lines in no order that a user could know."""
    if spec.startswith(("task:", "tfds:", ALONE)) or (is_json(Path(spec)) and not is_parallel(spec)):
        raise ValueError(
            f"data.alignment={config.alignment} goes with a TSV file or two parallel ones, not with data.train={spec}; "
            "leave it empty. Made-up tasks know their alignment, JSON lines have the field 'alignment'."
        )


def _aligned(found: Iterable[Placed | None], config: DataConfig, report: DataReport) -> Iterator[Placed]:
    """The pairs with what the file of alignments says of each."""
    path = Path(config.alignment)
    pairs, lines = list(found), read_lines(path, report)
    if len(pairs) != len(lines):
        raise ValueError(
            f"{path} has {len(lines)} lines, data.train={config.train} has {len(pairs)}; one line a pair is wanted, an "
            "empty one where nothing is aligned."
        )
    for number, (placed, line) in enumerate(zip(pairs, lines, strict=True), 1):
        if placed is not None:
            example, place = placed
            yield example._replace(links=links_of(line, example.source, example.target, f"{path}:{number}")), place


def _made(name: str, split: str, config: DataConfig) -> list[Example]:
    """The items of a made-up task."""
    lengths = config.test_lengths if split == "test" and any(config.test_lengths) else config.lengths
    shortest, longest = (length or None for length in lengths)
    setting = "train_size" if split == "train" else "eval_size"
    bounds = {"minimum_length": shortest, "maximum_length": longest}
    try:
        return synthetic_tasks.make_examples(
            name, split=split, count=getattr(config, setting), seed=config.seed, **bounds
        )
    except ValueError as error:
        raise ValueError(f"{error} (count is data.{setting} here, the lengths are data.lengths)") from None


def _numbered(examples: Iterable[Example], where: str) -> Iterator[Placed]:
    return ((example, f"{where}:{number}") for number, example in enumerate(examples, 1))


def _alone(path: Path, config: DataConfig, report: DataReport) -> Iterator[Placed | None]:
    """A target a line, None for one that a policy skips."""
    for number, line in enumerate(read_lines(path, report, encoding_errors=config.encoding_errors), 1):
        yield None if line is None else (Example("", line), f"{path}:{number}")


def _parallel(spec: str, config: DataConfig, report: DataReport) -> Iterator[Placed | None]:
    """A pair a line, None for one that a policy skips."""
    names = spec.split(",")
    if len(names) != 2 or not all(names):
        raise ValueError(f"two parallel files are wanted as A,B, got {spec!r}.")
    paths = [Path(name) for name in names]
    sides = [read_lines(path, report, encoding_errors=config.encoding_errors) for path in paths]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(_unequal(paths, sides))
    for number, (source, target) in enumerate(zip(*sides, strict=True), 1):
        if source is None or target is None:
            yield None
        else:
            yield Example(source, target), f"{paths[0]}:{number}"


def _unequal(paths: list[Path], sides: list[list[str | None]]) -> str:
    """Why two files do not pair up: both counts, where the shift probably starts, and the usual cause."""
    counts = [len(side) for side in sides]
    text = f"{paths[0]} has {counts[0]} lines, {paths[1]} has {counts[1]}; "
    pieces = [[len((line or "").splitlines()) or 1 for line in side] for side in sides]
    if sum(pieces[0]) == sum(pieces[1]):
        first = min(next((n for n, count in enumerate(side, 1) if count > 1), max(counts)) for side in pieces)
        text += f"from line {first} on one was probably cut at U+2028 or its like elsewhere; here only \\n ends a line"
    else:
        text += f"the shift probably starts near line {_first_shift(*sides)}"
    return text + "; make them the same length."


def _first_shift(left: list[str | None], right: list[str | None]) -> int:
    """Where the longer side has something extra: before it lengths fit line by line, behind it that much further on."""
    longer, shorter = ([1 + len(line or "") for line in side] for side in sorted((left, right), key=len, reverse=True))
    usual = sum(longer) / max(1, sum(shorter))
    extra = len(longer) - len(shorter)
    together = [abs(math.log(a / b / usual)) for a, b in zip(longer, shorter, strict=False)]
    apart = [abs(math.log(a / b / usual)) for a, b in zip(longer[extra:], shorter, strict=True)]
    before = itertools.accumulate(together, initial=0.0)
    behind = [sum(apart) - so_far for so_far in itertools.accumulate(apart, initial=0.0)]
    misfits = [a + b for a, b in zip(before, behind, strict=True)]
    return 1 + misfits.index(min(misfits))


def _tsv(path: Path, config: DataConfig, report: DataReport) -> Iterator[Placed | None]:
    """A pair a line, None for one that a policy skips."""
    columns = _column("source", config.source, 1), _column("target", config.target, 2)
    if columns[0] == columns[1]:
        raise ValueError(f"source and target are both column {columns[0]} of {path}; say data.source=1 data.target=2.")
    named = bool(config.source or config.target)
    for number, line in enumerate(read_lines(path, report, encoding_errors=config.encoding_errors), 1):
        if line is None:
            yield None
            continue
        place = f"{path}:{number}"
        yield tsv_pair(line, place, columns=columns, exact=not named), place


def _column(setting: str, value: str, default: int) -> int:
    if value and not (value.isdecimal() and int(value) > 0):
        raise ValueError(f"data.{setting} names a column of a TSV file by number (1 is the first), got {value!r}")
    return int(value or default)


def _json_lines(path: Path, config: DataConfig, report: DataReport) -> Iterator[Placed]:
    names = config.source or "source", config.target or "target"
    for number, line in enumerate(read_lines(path, report, encoding_errors=config.encoding_errors), 1):
        if line is None:
            continue
        place = f"{path}:{number}"
        yield json_pair(line, place, names=names), place


def _usable(example: Example, place: str, config: DataConfig, report: DataReport) -> bool:
    sides = ("target",) if config.train.startswith(ALONE) else ("source", "target")
    blank = [side for side in sides if is_blank(getattr(example, side))]
    if blank and config.blank_lines == "error":
        raise ValueError(f"{place}: blank {' and '.join(blank)}; say data.blank_lines=drop or keep to go on.")
    if blank:
        report.add(f"blank {' and '.join(blank)}, pair {'kept' if config.blank_lines == 'keep' else 'dropped'}", place)
        if config.blank_lines == "drop":
            return False
    if has_control(example.source) or has_control(example.target):
        report.add(f"control characters, pair {'kept' if config.control_characters == 'keep' else 'dropped'}", place)
        return config.control_characters == "keep"
    return True
