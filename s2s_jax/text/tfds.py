"""How does a TensorFlow data set become a list of examples, with no TensorFlow installed?"""

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

from s2s_jax.text.builders import PublishedPairs, cmudict_g2p, cogs, scan
from s2s_jax.text.example import Example
from s2s_jax.text.pairs import links_of

OUR_OWN = (cmudict_g2p.CmudictG2p, cogs.Cogs, scan.Scan)

SPEC = re.compile(r"tfds:(?P<name>\w+)(/(?P<config>[^:@\s]+))?(:(?P<version>[\d.*]+))?(@(?P<split>\S+))?")
FORM = "tfds:NAME[/CONFIG][:VERSION][@SPLIT], for example tfds:scan/length@train[:90%]"
CHUNK = 10_000  # records fetched at once: one by one takes more than twice as long, all at once holds them twice
RETRIES = 3  # of a connection, 1.2 seconds in all; TFDS takes 10 and three and a half minutes to say "no network"


class Spec(NamedTuple):
    """The parts of a `tfds:` spec; a part that was not said is empty."""

    name: str
    config: str
    version: str
    split: str

    def __str__(self) -> str:
        return f"tfds:{self.name}" + (self.config and f"/{self.config}") + (self.version and f":{self.version}")


def read(
    spec: str,
    *,
    split: str,
    source: str = "",
    target: str = "",
    manual_directory: str = "",
    data_directory: str = "",
) -> list[Example]:
    """The pairs of one split of a data set, in its order; prepared first, where that was not done before.

    Args:
        spec: `tfds:NAME[/CONFIG][:VERSION][@SPLIT]`. A split said here goes before `split`.
        split: what TFDS understands: `train`, `train[:90%]`, `train+validation`.
        source: name of the text feature to translate from. Both names, or neither: then the languages that the
            configuration names, else the data set's own (input, output), else its only two texts.
        target: name of the text feature to translate to.
        manual_directory: folder with files that are not to be fetched, or can't be.
        data_directory: where prepared data lies; default is TFDS' own, TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
        ValueError: if the spec, a name, a split or the data is not right.
        FileNotFoundError: if the data is not there and can't be fetched.
    """
    wanted = parsed(spec)
    split = wanted.split or split
    if manual_directory and not os.path.isdir(manual_directory):
        raise FileNotFoundError(f"--data.manual-dir {manual_directory}: no such folder; create it, or leave it out")
    builder = opened(wanted, data_directory=data_directory)
    names = sides(builder, spec=wanted, source=source, target=target)
    if not builder.data_path.exists():
        prepare(builder, spec=wanted, manual_directory=manual_directory)
        builder = opened(wanted, data_directory=data_directory)  # what lies there now, whoever prepared it
    check_split(split, known=list(builder.info.splits), spec=wanted)
    aligned = builder.alignment if isinstance(builder, PublishedPairs) and names == PublishedPairs.SIDES else None
    examples = []
    for where, record in records(builder, spec=wanted, split=split):
        source, target = (text(record[name], where=where) for name in names)
        examples.append(Example(source, target, links_of(aligned and aligned(source, target), source, target, where)))
    return examples


def parsed(spec: str) -> Spec:
    """The parts of a spec.

    Raises:
        ValueError: if it has another form.
    """
    match = SPEC.fullmatch(spec)
    if match is None:
        raise ValueError(f"data {spec!r} is no data set; wanted {FORM}")
    return Spec(**{part: match[part] or "" for part in Spec._fields})


def opened(spec: Spec, *, data_directory: str) -> tfds.core.DatasetBuilder:
    """The builder of a data set, prepared or not.

    Raises:
        ValueError: if there is no such name, configuration or version, or if several configurations are there and
            none is said (TFDS would take the first: wmt14_translate would be Czech without a word).
    """
    said = {"data_dir": data_directory, "config": spec.config, "version": spec.version}
    settings: dict[str, Any] = {name: value for name, value in said.items() if value}
    check_config(spec)
    try:
        return tfds.builder(spec.name, **settings)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise ValueError(f"no data set {spec.name!r}{near(spec.name, known)}; wanted {FORM}") from error
    except (ValueError, AssertionError) as error:  # an unknown version is an AssertionError
        raise ValueError(f"{spec}: {one_line(error)}") from error


def check_config(spec: Spec) -> None:
    """Nothing, if the spec says a configuration that the code of the data set knows, or needs none."""
    try:
        builder = tfds.builder_cls(spec.name)
    except tfds.core.DatasetNotFoundError:
        return  # perhaps prepared elsewhere and copied here, which tfds.builder looks for
    known = list(builder.builder_configs)
    if not spec.config and len(known) > 1 and not builder.DEFAULT_BUILDER_CONFIG_NAME:
        raise ValueError(f"{spec} has several configurations, name one ({spec}/{known[0]}): {', '.join(known)}")
    if spec.config and known and spec.config not in known and not spec.version:
        raise ValueError(
            f"tfds:{spec.name} has no configuration {spec.config!r}{near(spec.config, known)}; it has "
            f"{', '.join(known)}; one that was prepared with older code needs its version: {spec}:VERSION"
        )


def sides(builder: tfds.core.DatasetBuilder, *, spec: Spec, source: str, target: str) -> tuple[str, str]:
    """The names of the two text features to read.

    Raises:
        ValueError: if one is named and not the other, if a name is no text, or if there is no telling.
    """
    features: Any = builder.info.features or {}
    texts = [name for name, feature in features.items() if isinstance(feature, tfds.features.Text)]
    listed = ", ".join(sorted(texts)) or "none"
    if bool(source) != bool(target):
        raise ValueError(f"{spec}: name both source and target, or neither; its texts: {listed}")
    for side, name in (("source", source), ("target", target)):
        if name and name not in texts:
            raise ValueError(f"{spec}: {side} {name!r} is none of its texts{near(name, texts)}; it has: {listed}")
    if source:
        return source, target
    languages = re.split("_to_|-", builder.builder_config_name or "")  # de-en, or pt_to_en in the TED talks
    named = languages if isinstance(features, tfds.features.Translation) else ()
    candidates: tuple[Any, ...] = (named, builder.info.supervised_keys or (), texts)
    for pair in candidates:
        if len(pair) == 2 and all(name in texts for name in pair):
            return pair[0], pair[1]
    raise ValueError(f"{spec}: no telling what is source and what is target; name both, its texts: {listed}")


def prepare(builder: tfds.core.DatasetBuilder, *, spec: Spec, manual_directory: str) -> None:
    """Fetches the data set and writes it to its folder as array records; what TFDS prints goes to stderr.

    Raises:
        FileNotFoundError: if it can't be fetched.
        ValueError: if what was fetched is not what was published, or TFDS can't prepare it.
    """
    config = tfds.download.DownloadConfig(manual_dir=manual_directory or None, try_download_gcs=False)
    try:
        with standing_in(), contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(file_format="array_record", download_config=config)
    except ImportError as error:
        raise ValueError(f"{spec} can't be prepared here, its code in TFDS wants more: {one_line(error)}") from error
    except (OSError, tfds.download.DownloadError) as error:
        if builder.data_path.exists():  # another process was faster, and a rename onto its folder fails
            return
        if isinstance(builder, PublishedPairs):
            raise
        raise FileNotFoundError(
            f"{spec} is not in {builder.data_dir} and can't be fetched ({one_line(error)}); copy that folder from a "
            "machine where it was prepared, or put the published files in a folder: --data.manual-dir DIR"
        ) from error
    except Exception as error:
        if isinstance(builder, PublishedPairs):
            raise
        raise ValueError(f"{spec} can't be prepared: {one_line(error)}") from error


@contextlib.contextmanager
def standing_in() -> Iterator[None]:
    """While this lasts, plain Python stands in for what TFDS 4.9.10 uses in preparing and does not require.

    That is tf.io.gfile, through which it unpacks archives, and importlib_resources. And a missing network is
    noticed soon, and without urllib3 telling of each attempt.
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


def check_split(split: str, *, known: Sequence[str], spec: Spec) -> None:
    """Nothing, if every part of a split such as `train[:90%]+test` is a split of the data set.

    Raises:
        ValueError: if one is not.
    """
    for part in split.split("+"):
        name = part.split("[")[0].strip()
        if known and name not in (*known, "all"):  # `all` is TFDS' word for every split
            raise ValueError(f"{spec} has no split {name!r}{near(name, known)}; it has: {', '.join(sorted(known))}")


def records(builder: tfds.core.DatasetBuilder, *, spec: Spec, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a split, in order, each with words for where it lies.

    Raises:
        ValueError: if the split can't be understood, or lies there in a format that only TensorFlow reads.
    """
    try:
        data = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]  TFDS' decorator hides the parameter
    except NotImplementedError as error:
        raise ValueError(
            f"{spec} lies in {builder.data_dir} in a format without random access; name another folder with "
            "--data.directory DIR, there it is prepared as array_record"
        ) from error
    except (ValueError, AssertionError) as error:
        raise ValueError(f"{spec}: split {split!r} is not understood: {one_line(error)}") from error
    for start in range(0, len(data), CHUNK):
        rows = range(start, min(start + CHUNK, len(data)))
        for row, record in zip(rows, data.__getitems__(rows), strict=True):
            yield f"{spec}, split {split!r}, record {row}", record


def text(value: bytes | str, *, where: str) -> str:
    """A text feature as text.

    Raises:
        ValueError: if it is not UTF-8.
    """
    if isinstance(value, str):  # so the records of tfds.testing.mock_data are
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: wanted UTF-8, got {error.reason} at byte {error.start}") from error


def near(name: str, known: Sequence[str]) -> str:
    """`; did you mean ...`, where a known name is near."""
    close = difflib.get_close_matches(name, known)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def one_line(error: BaseException) -> str:
    """The text of an error of TFDS, most of which go over many lines."""
    return " ".join(str(error).split())
