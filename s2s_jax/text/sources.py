"""Sources of pairs: which one a setting such as `data.train` names, and which of its pairs are used.

A prefix names the source: `task:NAME`, `tfds:NAME` or `lines:FILE` (targets without sources). Without one, a TSV or
JSON-lines file or two parallel files joined by a comma are meant. `SOURCES` holds the reader of each prefix.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Protocol, get_args

from s2s_jax.text import synthetic_tasks
from s2s_jax.text.corpora import check_corpora, listed
from s2s_jax.text.data_report import DataReport
from s2s_jax.text.embedding_file import embedding_files
from s2s_jax.text.example import Example
from s2s_jax.text.files import EncodingErrors, has_control, is_blank
from s2s_jax.text.pair_files import Placed, read_json_lines, read_parallel, read_targets, read_tsv, with_alignments
from s2s_jax.text.pairs import column_numbers, field_names, is_json, is_parallel
from s2s_jax.validation import at_least, check_fields, one_of

SPLITS = ("train", "validation", "test")
TARGETS_ONLY = "lines:"

BlankLines = Literal["drop", "keep", "error"]
ControlCharacters = Literal["drop", "keep"]
TooLong = Literal["error", "drop", "truncate"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data for training, validation and test."""

    train: str = ""
    """task:NAME, tfds:NAME[/CONFIG][@SPLIT], one TSV or JSON-lines file, or parallel files as A,B; plain or .gz.
    Or lines:FILE: each line is a target, and all sources are empty, for a language model. Several corpora are a JSON
    list of any of these: '["a.en,a.de", "more.tsv"]'.
    """
    weights: tuple[float, ...] = ()
    """How large a part of an epoch each of several corpora has, in the order of `train`, up to a common factor; empty
    for parts by size. An epoch has as many pairs as all corpora together."""
    temperature: float = 1.0
    """Where no weights are given, the part of a corpus is proportional to size^(1/temperature): 1 for parts by size,
    larger for more equal ones."""
    tags: tuple[str, ...] = ()
    """A token put before each source line of each corpus, such as <bt> for back-translated sources; "" for none. A line
    to translate may start with it as well."""
    validation: str = ""
    """The same for validation; empty: the validation split of a source that has splits, such as task: and tfds:."""
    test: str = ""
    """The same for the final test; empty: the test split of a source that has splits, else the validation data is
    read in its place, and the results say so. Named files are read when training starts too, to report overlap."""
    source: str = ""
    """Name of the source feature (tfds:), field (JSON lines; default source) or column number (TSV; default 1)."""
    target: str = ""
    """Name of the target feature (tfds:), field (JSON lines; default target) or column number (TSV; default 2)."""
    features: tuple[str, ...] = ()
    """Features of the source, such as morphological tags or the same text in other languages, as NAME,...: fields of
    JSON lines, numbers of columns of TSV; of parallel files, one more file per feature after source and target. A
    synthetic task with features needs a name for each that is used. See tokenizer.features and model.features."""
    alignment: str = ""
    """Word alignments of the training pairs: a file with one line per pair of data.train, which must be a TSV file or
    two parallel ones; plain or .gz. A line has `i-j` for each sure link of source word i and target word j (Pharaoh,
    from 0), and `ipj` for a possible one."""
    validation_alignment: str = ""
    """The same for data.validation, and for the test data where that is the validation data."""
    test_alignment: str = ""
    """The same for data.test."""
    embeddings: str = ""
    """Word vectors that the embeddings start from: one file for both sides, or SOURCE_FILE,TARGET_FILE, of which one
    may be empty; text as word2vec or GloVe writes it, plain or .gz, of model.embedding numbers per token."""
    directory: str = ""
    """Folder in which tfds: data sets are kept; empty for the default of TFDS."""
    cache: str = "~/.cache/s2s_jax/encoded"
    """Folder that keeps vocabularies and ids of large data (from 100,000 pairs) for the next run on it, and holds the
    data that is being read, where it is large. Empty: nothing is kept, and the folder of the system (TMPDIR) is used.
    """
    workers: int = 0
    """Processes that tokenize large data (from 100,000 pairs): 0 for one per processor, at most 16; 1 for none but the
    process that trains."""
    manual_dir: str = ""
    """Folder with the original files of a tfds: data set, for machines without a network."""
    train_size: int = 20_000
    """Number of training pairs of a synthetic task."""
    eval_size: int = 1000
    """Number of validation pairs, and of test pairs, of a synthetic task."""
    lengths: tuple[int, int] = (0, 0)
    """Shortest and longest item of a synthetic task, in its symbols; 0 for the task's own."""
    test_lengths: tuple[int, int] = (0, 0)
    """The same for its test items alone, to test on longer ones than were trained on; 0 for data.lengths."""
    seed: int = 0
    """Seed of the items of a synthetic task."""
    blank_lines: BlankLines = "drop"
    """Training pairs with a blank side: drop, keep or error."""
    control_characters: ControlCharacters = "drop"
    """Training pairs with control characters: drop or keep."""
    encoding_errors: EncodingErrors = "strict"
    """Lines that are not UTF-8: strict (refuse), replace (by U+FFFD) or skip."""
    max_length: int = 0
    """Longest training line in tokens, on either side; 0 for no bound. A pair longer than batch.tokens is refused."""
    too_long: TooLong = "error"
    """Training pairs over max_length: error (refuse where they are over 5 %, else drop), drop or truncate."""

    def __post_init__(self):
        check_fields(self, "data")
        if repeated := {name for name in self.features if self.features.count(name) > 1}:
            raise ValueError(f"data.features must be different names, got {', '.join(sorted(repeated))} more than once")
        one_of("data.blank_lines", self.blank_lines, get_args(BlankLines))
        one_of("data.control_characters", self.control_characters, get_args(ControlCharacters))
        one_of("data.encoding_errors", self.encoding_errors, get_args(EncodingErrors))
        one_of("data.too_long", self.too_long, get_args(TooLong))
        embedding_files(self.embeddings)
        at_least("data.train_size", self.train_size, 1)
        at_least("data.eval_size", self.eval_size, 1)
        at_least("data.max_length", self.max_length, 0)
        at_least("data.workers", self.workers, 0)
        check_corpora(
            self.corpora, weights=self.weights, temperature=self.temperature, tags=self.tags, alignment=self.alignment
        )

    @property
    def corpora(self) -> tuple[str, ...]:
        """The specs of the training corpora."""
        return listed(self.train)

    def split_used(self, split: str) -> str:
        """The split that is read: validation in place of test where no test data is named and the source has none."""
        one_of("split", split, SPLITS)
        absent = split == "test" and not self.test and not has_splits(self.train)
        return "validation" if absent and self.validation else split

    def alignment_setting(self, split: str) -> str:
        """The name of the field that holds the alignments of a split."""
        used = self.split_used(split)
        return "alignment" if used == "train" else f"{used}_alignment"

    def spec(self, split: str) -> str:
        """The source of a split: its own setting, or the training source where that has splits.

        Raises:
            ValueError: there is none.
        """
        one_of("split", split, SPLITS)
        if not self.train:
            raise ValueError("data.train is empty; name a source: task:dates, tfds:NAME, pairs.tsv or a.txt,b.txt.")
        own = getattr(self, self.split_used(split))
        if own or has_splits(self.train):
            return own or (self.train.split("@")[0] if self.train.startswith("tfds:") else self.train)
        raise ValueError(f"data.{split} is empty; name a file of pairs like data.train={self.train}.")


def read_split(config: DataConfig, split: str) -> tuple[list[Example], DataReport]:
    """All pairs of a split that are used, and a report of the irregularities in it.

    Raises:
        FileNotFoundError, ValueError: as `stream_split`.
    """
    report = DataReport()
    return [*stream_split(config, split, report)], report


def stream_split(config: DataConfig, split: str, report: DataReport) -> Iterator[Example]:
    """The pairs of a split that are used, as they are read.

    Training pairs are filtered according to the config; validation and test pairs are all used.

    Args:
        report: takes the irregularities; it is complete after the last pair.

    Raises:
        FileNotFoundError, ValueError: with file and line where data is at fault.
    """
    if split == "train" and len(config.corpora) > 1:
        for examples in corpus_streams(config, report):
            yield from examples
        return
    spec, read, kept = config.spec(split), report.read, report.kept
    for example, place in _placed_examples(spec, split, config, report):
        report.read += 1
        if split != "train" or _is_usable(example, place, config, report):
            report.kept += 1
            report.kept_places.append(place)
            yield example
    if report.kept == kept:
        reasons = "; ".join(report.lines()[1:]) or "it is empty"
        raise ValueError(f"data.{split}={spec}: 0 of {report.read - read} pairs left: {reasons}.")


def corpus_streams(config: DataConfig, report: DataReport) -> Iterator[Iterator[Example]]:
    """The training pairs of each corpus, one corpus after another; the report takes the size of each that was read."""
    for spec in config.corpora or ("",):
        before = report.kept
        yield stream_split(dataclasses.replace(config, train=spec, weights=(), tags=()), "train", report)
        report.corpus_sizes.append(report.kept - before)


class Reader(Protocol):
    """What `SOURCES` holds for each prefix.

    A reader of your own, which makes `data.train=mine:questions` known:

    def read_mine(name, split, config, report):
        for number, (question, answer) in enumerate(my_rows(name, split), 1):
            yield Example(question, answer), f"mine:{name}:{number}"

    SOURCES["mine:"] = read_mine
    """

    def __call__(self, name: str, split: str, config: DataConfig, report: DataReport) -> Iterable[Placed | None]:
        """The pairs of one split, each with its place for errors and reports; None for a line that is skipped.

        Args:
            name: the spec without the prefix.
            split: train, validation or test.
            config: the other settings of the data.
            report: takes irregularities, `report.add(reason, place)`; pairs are counted by the caller.
        """
        ...


def has_splits(spec: str) -> bool:
    """Whether a source gives all three splits: every one with a prefix does, except for a file of targets."""
    return _prefix(spec) not in ("", TARGETS_ONLY)


def _prefix(spec: str) -> str:
    """The prefix of a spec; empty where it names files of pairs."""
    return next((prefix for prefix in SOURCES if spec.startswith(prefix)), "")


def _placed_examples(spec: str, split: str, config: DataConfig, report: DataReport) -> Iterator[Placed]:
    """Each pair of a source with its place."""
    prefix, setting = _prefix(spec), config.alignment_setting(split)
    if alignment := getattr(config, setting):
        pairs_file = f"data.{config.split_used(split)}={spec}"
        if prefix or (is_json(Path(spec)) and not is_parallel(spec)):
            raise ValueError(
                f"data.{setting}={alignment} goes with a TSV file or two parallel ones, not with {pairs_file}; leave "
                "it empty. Synthetic tasks know their alignment, JSON lines have the field 'alignment'."
            )
        pairs = _read_files(spec, split, config, report)
        pairs = with_alignments(pairs, Path(alignment), report, pairs_file=pairs_file)
    else:
        pairs = SOURCES.get(prefix, _read_files)(spec.removeprefix(prefix), split, config, report)
    return (_with_features_of(pair, config.features) for pair in pairs if pair is not None)


def _with_features_of(placed: Placed, names: tuple[str, ...]) -> Placed:
    """A pair with one feature per name; those that its source has beside them are left out.

    Raises:
        ValueError: it has fewer.
    """
    example, place = placed
    if len(example.features) == len(names):
        return placed
    if len(example.features) < len(names):
        raise ValueError(
            f"{place}: {len(example.features)} features, data.features={','.join(names)} names {len(names)}; leave out "
            "those that this source does not have."
        )
    return example._replace(features=example.features[: len(names)]), place


def _read_task(name: str, split: str, config: DataConfig, report: DataReport) -> Iterator[Placed]:
    """The items of a synthetic task."""
    lengths = config.test_lengths if split == "test" and any(config.test_lengths) else config.lengths
    shortest, longest = (length or None for length in lengths)
    setting = "train_size" if split == "train" else "eval_size"
    bounds = {"minimum_length": shortest, "maximum_length": longest}
    count = getattr(config, setting)
    try:
        examples = synthetic_tasks.make_examples(name, split=split, count=count, seed=config.seed, **bounds)
    except ValueError as error:
        text = str(error).rstrip(".")
        raise ValueError(f"task:{name}: {text} (count is data.{setting}, the lengths are data.lengths)") from None
    return _numbered(examples, f"task:{name}")


def _read_tfds(name: str, split: str, config: DataConfig, report: DataReport) -> Iterator[Placed]:
    """The pairs of a TensorFlow data set."""
    from s2s_jax.text import tfds  # takes seconds, and only these sources need it

    spec = f"tfds:{name}"
    folders = {"manual_directory": config.manual_dir, "data_directory": config.directory}
    examples = tfds.read_dataset(spec, split=split, source=config.source, target=config.target, **folders)
    return _numbered(examples, f"{spec}@{split}")


def _read_targets(name: str, split: str, config: DataConfig, report: DataReport) -> Iterator[Placed | None]:
    """The lines of a file as targets without sources."""
    return read_targets(Path(name), report, encoding_errors=config.encoding_errors)


def _read_files(name: str, split: str, config: DataConfig, report: DataReport) -> Iterator[Placed | None]:
    """The pairs of a TSV file, a JSON-lines file or parallel files."""
    path, errors = Path(name), config.encoding_errors
    if is_parallel(name):
        return read_parallel(name, report, encoding_errors=errors, features=config.features)
    if (prefix := re.match(r"\w+:", name)) and not path.exists():
        raise FileNotFoundError(
            f"no file {name}, and no source {prefix[0]} among {', '.join(SOURCES)}; a source of your own needs "
            "--import FILE."
        )
    if is_json(path):
        names = field_names(config.source, config.target, config.features)
        return read_json_lines(path, report, encoding_errors=errors, names=names)
    columns = column_numbers(config.source, config.target, config.features)
    exact = not (config.source or config.target or config.features)
    return read_tsv(path, report, encoding_errors=errors, columns=columns, exact=exact)


SOURCES: dict[str, Reader] = {"task:": _read_task, "tfds:": _read_tfds, TARGETS_ONLY: _read_targets}


def _numbered(examples: Iterable[Example], place: str) -> Iterator[Placed]:
    return ((example, f"{place}:{number}") for number, example in enumerate(examples, 1))


def _is_usable(example: Example, place: str, config: DataConfig, report: DataReport) -> bool:
    """Whether a training pair is kept; irregularities go into the report."""
    source, target, features = example.source, example.target, example.features
    for name, text in zip(config.features, features, strict=True):
        if is_blank(text):
            report.add(f"blank feature {name}, pair kept", place)
    controlled = has_control(source) or has_control(target) or any(map(has_control, features))
    if not (is_blank(source) or is_blank(target) or controlled):
        return True  # nearly all
    sides = ("target",) if config.train.startswith(TARGETS_ONLY) else ("source", "target")
    blank = " and ".join(side for side in sides if is_blank(getattr(example, side)))
    if blank and config.blank_lines == "error":
        raise ValueError(f"{place}: blank {blank}; set data.blank_lines=drop or keep to go on.")
    if blank:
        report.add(f"blank {blank}, pair {'kept' if config.blank_lines == 'keep' else 'dropped'}", place)
        if config.blank_lines == "drop":
            return False
    if controlled:
        report.add(f"control characters, pair {'kept' if config.control_characters == 'keep' else 'dropped'}", place)
        return config.control_characters == "keep"
    return True
