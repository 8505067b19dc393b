"""TensorFlow data sets as lists of examples, without TensorFlow."""

import contextlib
import difflib
import importlib.resources
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
import tensorflow_datasets.summarization
import tensorflow_datasets.text
import tensorflow_datasets.translate  # importing is what makes a name known to tfds.builder
from tensorflow_datasets.core import dataset_builder
from tensorflow_datasets.core.download import downloader, extractor

from s2s_jax.text.builders import PublishedPairs, cmudict_g2p, cogs, scan, small_parallel_enja
from s2s_jax.text.example import Example
from s2s_jax.text.pairs import parse_alignment

OWN_BUILDERS = (cmudict_g2p.CmudictG2p, cogs.Cogs, scan.Scan, small_parallel_enja.SmallParallelEnja)

SPEC_PATTERN = re.compile(r"tfds:(?P<name>\w+)(/(?P<config>[^:@\s]+))?(:(?P<version>[\d.*]+))?(@(?P<split>\S+))?")
SYNTAX = "tfds:NAME[/CONFIG][:VERSION][@SPLIT], for example tfds:scan/length@train[:90%]"
CHUNK = 10_000  # records read at once: one at a time takes more than twice as long, all at once doubles the memory
RETRIES = 3  # of a connection, 1.2 seconds in all; the 10 of TFDS take three and a half minutes without a network


class DatasetSpec(NamedTuple):
    """The parts of a `tfds:` spec; a part that is left out is empty."""

    name: str
    config: str
    version: str
    split: str

    def __str__(self) -> str:
        return f"tfds:{self.name}" + (self.config and f"/{self.config}") + (self.version and f":{self.version}")


def read_dataset(
    spec: str,
    *,
    split: str,
    source: str = "",
    target: str = "",
    manual_directory: str = "",
    data_directory: str = "",
) -> Iterator[Example]:
    """The pairs of one split of a data set, in its order; the data set is prepared if that was not done before.

    Args:
        spec: `tfds:NAME[/CONFIG][:VERSION][@SPLIT]`. A split in the spec takes precedence over `split`.
        split: in the syntax of TFDS: `train`, `train[:90%]`, `train+validation`.
        source: name of the text feature to translate from. Both names, or neither: then the languages that the
            configuration names, else the data set's own (input, output), else its only two texts.
        target: name of the text feature to translate to.
        manual_directory: folder with the published files, if they are not to be downloaded, or cannot be.
        data_directory: folder of prepared data; the default is that of TFDS, TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
        ValueError: the spec, a name, a split or the data is wrong.
        FileNotFoundError: the data is not there and cannot be downloaded.
    """
    dataset = parse_spec(spec)
    split = dataset.split or split
    if manual_directory and not os.path.isdir(manual_directory):
        raise FileNotFoundError(f"--data.manual-dir {manual_directory}: no such folder; create it, or leave it out")
    builder = open_builder(dataset, data_directory=data_directory)
    names = text_features(builder, spec=dataset, source=source, target=target)
    if not builder.data_path.exists():
        prepare_dataset(builder, spec=dataset, manual_directory=manual_directory)
        builder = open_builder(dataset, data_directory=data_directory)  # as prepared, perhaps by another process
    check_split(split, known=list(builder.info.splits), spec=dataset)
    align = builder.alignment if isinstance(builder, PublishedPairs) and names == PublishedPairs.FEATURES else None
    for place, record in read_records(builder, spec=dataset, split=split):
        source, target = (decode_text(record[name], place=place) for name in names)
        links = parse_alignment(align(source, target), source, target, place) if align else None
        yield Example(source, target, links)


def parse_spec(spec: str) -> DatasetSpec:
    """The parts of a spec.

    Raises:
        ValueError: it has another form.
    """
    match = SPEC_PATTERN.fullmatch(spec)
    if match is None:
        raise ValueError(f"{spec!r} does not name a TensorFlow data set; wanted {SYNTAX}")
    return DatasetSpec(**{part: match[part] or "" for part in DatasetSpec._fields})


def open_builder(spec: DatasetSpec, *, data_directory: str) -> tfds.core.DatasetBuilder:
    """The builder of a data set, prepared or not.

    Raises:
        ValueError: there is no such name, configuration or version, or there are several configurations and none is
            named (TFDS would take the first: wmt14_translate would silently be Czech).
    """
    parts = {"data_dir": data_directory, "config": spec.config, "version": spec.version}
    settings: dict[str, Any] = {name: value for name, value in parts.items() if value}
    check_config(spec)
    try:
        return tfds.builder(spec.name, **settings)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise ValueError(f"no data set {spec.name!r}{nearest_names(spec.name, known)}; wanted {SYNTAX}") from error
    except (ValueError, AssertionError) as error:  # an unknown version is an AssertionError
        raise ValueError(f"{spec}: {flattened(error)}") from error


def check_config(spec: DatasetSpec) -> None:
    """Refuse a spec without a configuration where there are several, and one with an unknown configuration.

    Raises:
        ValueError: with the configurations that there are.
    """
    try:
        builder = tfds.builder_cls(spec.name)
    except tfds.core.DatasetNotFoundError:
        return  # perhaps prepared elsewhere and copied here: tfds.builder finds it
    known = list(builder.builder_configs)
    if not spec.config and len(known) > 1 and not builder.DEFAULT_BUILDER_CONFIG_NAME:
        raise ValueError(f"{spec} has several configurations, name one ({spec}/{known[0]}): {', '.join(known)}")
    if spec.config and known and spec.config not in known and not spec.version:
        raise ValueError(
            f"tfds:{spec.name} has no configuration {spec.config!r}{nearest_names(spec.config, known)}; it has "
            f"{', '.join(known)}; one that was prepared with older code needs its version: {spec}:VERSION"
        )


def text_features(builder: tfds.core.DatasetBuilder, *, spec: DatasetSpec, source: str, target: str) -> tuple[str, str]:
    """The names of the two text features to read.

    Raises:
        ValueError: only one of them is named, a name is not a text feature, or none is named and the choice is unclear.
    """
    features: Any = builder.info.features or {}
    texts = [name for name, feature in features.items() if isinstance(feature, tfds.features.Text)]
    listed = ", ".join(sorted(texts)) or "none"
    if bool(source) != bool(target):
        raise ValueError(f"{spec}: name both source and target, or neither; its texts: {listed}")
    for side, name in (("source", source), ("target", target)):
        if name and name not in texts:
            raise ValueError(
                f"{spec}: {side} {name!r} is not one of its texts{nearest_names(name, texts)}; it has: {listed}"
            )
    if source:
        return source, target
    languages = re.split("_to_|-", builder.builder_config_name or "")  # de-en, or pt_to_en in the TED talks
    named = languages if isinstance(features, tfds.features.Translation) else ()
    candidates: tuple[Any, ...] = (named, builder.info.supervised_keys or (), texts)
    for pair in candidates:
        if len(pair) == 2 and all(name in texts for name in pair):
            return pair[0], pair[1]
    raise ValueError(f"{spec} does not say what is source and what is target; name both, its texts: {listed}")


def prepare_dataset(builder: tfds.core.DatasetBuilder, *, spec: DatasetSpec, manual_directory: str) -> None:
    """Download the data set and write it to its folder as array records; the output of TFDS goes to stderr.

    Raises:
        FileNotFoundError: it cannot be downloaded.
        ValueError: a download is not the published file, or TFDS cannot prepare it.
    """
    config = tfds.download.DownloadConfig(manual_dir=manual_directory or None, try_download_gcs=False)
    try:
        with tfds_stand_ins(), contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(file_format="array_record", download_config=config)
    except ImportError as error:
        raise ValueError(f"{spec} cannot be prepared here, its code in TFDS needs more: {flattened(error)}") from error
    except (OSError, tfds.download.DownloadError) as error:
        if builder.data_path.exists():  # another process was faster: renaming onto its folder fails
            return
        if isinstance(builder, PublishedPairs):
            raise
        raise FileNotFoundError(
            f"{spec} is not in {builder.data_dir} and cannot be downloaded ({flattened(error)}); copy that folder from "
            "a machine where it was prepared, or put the published files in a folder: --data.manual-dir DIR"
        ) from error
    except Exception as error:
        if isinstance(builder, PublishedPairs):
            raise
        raise ValueError(f"{spec} cannot be prepared: {flattened(error)}") from error


@contextlib.contextmanager
def tfds_stand_ins() -> Iterator[None]:
    """A context in which plain Python replaces what TFDS 4.9.10 uses for preparing and does not require.

    These are tf.io.gfile, through which it unpacks archives, and importlib_resources. Also, a missing network is
    noticed soon, and urllib3 does not log each attempt.
    """
    files = SimpleNamespace(
        compat=SimpleNamespace(as_text=os.fsdecode), io=SimpleNamespace(gfile=SimpleNamespace(GFile=open))
    )
    attempts = logging.getLogger("urllib3.connectionpool")
    stand_ins: list[tuple[Any, str, Any]] = [(downloader, "MAX_RETRIES", RETRIES), (attempts, "disabled", True)]
    if importlib.util.find_spec("tensorflow") is None:
        stand_ins.append((extractor, "tf", files))
    if importlib.util.find_spec("importlib_resources") is None:
        stand_ins.append((dataset_builder, "importlib_resources", importlib.resources))
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in stand_ins]
    try:
        for owner, name, value in stand_ins:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def check_split(split: str, *, known: Sequence[str], spec: DatasetSpec) -> None:
    """Refuse a split such as `train[:90%]+test` unless each of its parts is a split of the data set.

    Raises:
        ValueError: with the splits that there are.
    """
    for part in split.split("+"):
        name = part.split("[")[0].strip()
        if known and name not in (*known, "all"):  # `all` means every split in TFDS
            raise ValueError(
                f"{spec} has no split {name!r}{nearest_names(name, known)}; it has: {', '.join(sorted(known))}"
            )


def read_records(
    builder: tfds.core.DatasetBuilder, *, spec: DatasetSpec, split: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a split, in order, each with its place for errors.

    Raises:
        ValueError: the split has the wrong syntax, or is stored in a format that only TensorFlow reads.
    """
    try:
        data = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]  TFDS' decorator hides the parameter
    except NotImplementedError as error:
        raise ValueError(
            f"{spec} is stored in {builder.data_dir} in a format without random access; name another folder with "
            "--data.directory DIR, where it will be prepared as array_record"
        ) from error
    except (ValueError, AssertionError) as error:
        raise ValueError(f"{spec}: split {split!r} cannot be parsed: {flattened(error)}") from error
    for start in range(0, len(data), CHUNK):
        rows = range(start, min(start + CHUNK, len(data)))
        for row, record in zip(rows, data.__getitems__(rows), strict=True):
            yield f"{spec}, split {split!r}, record {row}", record


def decode_text(value: bytes | str, *, place: str) -> str:
    """The text of a text feature, from UTF-8.

    Raises:
        ValueError: it is not UTF-8.
    """
    if isinstance(value, str):  # as in the records of tfds.testing.mock_data
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: wanted UTF-8, got {error.reason} at byte {error.start}") from error


def nearest_names(name: str, known: Sequence[str]) -> str:
    """`; did you mean ...`, if a known name is near; empty otherwise."""
    close = difflib.get_close_matches(name, known)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def flattened(error: BaseException) -> str:
    """The text of an error in one line; most errors of TFDS have many."""
    return " ".join(str(error).split())
