"""Published data sets of pairs as TFDS builders, each file checked against the bytes that were published."""

import abc
import gzip
import hashlib
import http.client
import os
import posixpath
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

Pair = tuple[str, str]
Checksum = tuple[int, str]  # the number of bytes of the uncompressed file, and their SHA-256

HELD_OUT = 20  # one line in this many is for validation, if a data set was published without a validation split
TIMEOUT_SECONDS = 30
SUFFIXES = ("", ".gz", ".tsv", ".tsv.gz")  # allowed after the published name of a file in the manual directory


class PublishedPairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of (source, target) lines in the order of its files, each file pinned by size and SHA-256.

    A data set defines the addresses of its files (`ROOT`, `FILES`), the files of each split (`published`), how a line
    of each makes a pair (`pair`), and, if it was published without one, its validation split (`divide`).
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Optional: the published files, flat, plain or .gz, under their published names."
    ROOT: ClassVar[str]  # an https address that names a commit, so that its content cannot change
    FILES: ClassVar[Mapping[str, Checksum]]  # path under ROOT -> checksum
    HOMEPAGE: ClassVar[str]
    LICENSE: ClassVar[str]
    FEATURES = ("source", "target")  # the names of its two texts

    # TFDS would search a checksums.tsv beside the code, through a package that it does not require.
    code_path = None

    def __init__(self, *, file_format: Any = "array_record", **settings: Any):
        super().__init__(file_format=file_format, **settings)

    @abc.abstractmethod
    def published(self) -> dict[str, tuple[str, ...]]:
        """The paths under ROOT of every split that was published: one file of pairs, or parallel files."""

    @abc.abstractmethod
    def pair(self, *lines: str) -> Pair:
        """The source and the target in a line of each file of a split."""

    def alignment(self, source: str, target: str) -> str | None:
        """The word alignment of a pair as Pharaoh's `i-j` from 0; None if the data set has none."""
        return None

    def divide(self, published: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
        """The splits of the data set, made from those that were published."""
        return published

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict({side: tfds.features.Text() for side in self.FEATURES}),
            supervised_keys=self.FEATURES,
            disable_shuffling=True,  # TFDS would sort by the hash of the key; file order is what papers slice
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        manual = manual_directory(dl_manager)
        published = {}
        for split, paths in self.published().items():
            files = [utf8_lines(self._content(path, manual=manual)) for path in paths]
            published[split] = [self.pair(*lines) for lines in zip(*files, strict=True)]
        return {split: self._generate_examples(pairs) for split, pairs in self.divide(published).items()}

    def _generate_examples(self, pairs: list[Pair]) -> Iterator[tuple[int, dict[str, str]]]:
        for row, (source, target) in enumerate(pairs):
            yield row, {"source": source, "target": target}

    def _content(self, path: str, *, manual: Path | None) -> bytes:
        """The verified bytes of one published file, from the manual directory or else from the network."""
        name = posixpath.basename(path)
        placed = manual and next(filter(Path.is_file, (manual / (name + suffix) for suffix in SUFFIXES)), None)
        place, content = (str(placed), read_unpacked(placed)) if placed else (self.ROOT + path, self._download(path))
        verify_content(content, place=place, wanted=self.FILES[path])
        return content

    def _download(self, path: str) -> bytes:
        try:
            return download(self.ROOT + path)
        except (OSError, http.client.HTTPException) as error:
            paths = [path for paths in self.published().values() for path in paths]
            names = ", ".join(sorted(map(posixpath.basename, paths)))
            raise FileNotFoundError(
                f"tfds:{self.info.name}: could not download {self.ROOT + path} ({error}); without a network, put "
                f"{names} (plain or .gz) in a folder and name it with --data.manual-dir DIR"
            ) from error


def manual_directory(dl_manager: tfds.download.DownloadManager) -> Path | None:
    """The folder with files that the user put there by hand, or None if there is no such folder or it is empty."""
    try:
        return Path(os.fspath(dl_manager.manual_dir))
    except AssertionError:
        return None


def download(url: str) -> bytes:
    """The content of a web address.

    Raises:
        OSError: it cannot be downloaded.
    """
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  always ROOT, always https
        return response.read()


def read_unpacked(path: Path) -> bytes:
    """The content of a file, gunzipped where its name ends in .gz.

    Raises:
        ValueError: its name ends in .gz and it is not a gzip file.
    """
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path}: wanted a gzip file ({error}); download it again, or put it there unpacked"
        ) from error


def verify_content(content: bytes, *, place: str, wanted: Checksum) -> None:
    """Refuse content that is not what was published.

    Raises:
        ValueError: its size or SHA-256 differs.
    """
    got = (len(content), hashlib.sha256(content).hexdigest())
    if got != wanted:
        raise ValueError(
            f"{place}: wanted {wanted[0]} bytes with SHA-256 {wanted[1]}, got {got[0]} bytes with SHA-256 {got[1]}; "
            "this is not the file that was published, download it again"
        )


def utf8_lines(content: bytes) -> list[str]:
    """The lines of a UTF-8 file, split at line feeds and nowhere else."""
    return content.decode("utf-8").removesuffix("\n").split("\n")
