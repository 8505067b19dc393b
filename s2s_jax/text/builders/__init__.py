"""Where do the pairs of a published data set come from, and are they the very bytes that were published?"""

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
Sum = tuple[int, str]  # how many bytes the uncompressed file has, and their SHA-256

HELD_OUT = 20  # one in this many goes to validation, where a data set was published without one
TIMEOUT_SECONDS = 30
SUFFIXES = ("", ".gz", ".tsv", ".tsv.gz")  # what a file in the manual directory may carry after its published name


class PublishedPairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of (source, target) lines in the order of its files, each file pinned by size and SHA-256.

    A data set says where its files lie (`ROOT`, `FILES`), which of them it wants (`published`), how a line reads
    (`pair`), and, where it was published without one, what its validation split is (`divide`).
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Optional: the published files, flat, plain or .gz, under their published names."
    ROOT: ClassVar[str]  # an https address that names a commit, so that what lies there can't change
    FILES: ClassVar[Mapping[str, Sum]]  # path under ROOT -> sum
    HOMEPAGE: ClassVar[str]
    LICENSE: ClassVar[str]
    SIDES = ("source", "target")  # the names of its two texts

    # TFDS looks for a checksums.tsv beside the code, through a package that it does not require (importlib_resources).
    code_path = None

    def __init__(self, *, file_format: Any = "array_record", **settings: Any):
        super().__init__(file_format=file_format, **settings)

    @abc.abstractmethod
    def published(self) -> dict[str, str]:
        """The path under ROOT of every split that was published."""

    @abc.abstractmethod
    def pair(self, line: str) -> Pair:
        """The source and the target that a line holds."""

    def alignment(self, source: str, target: str) -> str | None:
        """Which words of a pair belong together, as Pharaoh's `i-j` from 0; None where the data set does not say."""
        return None

    def divide(self, published: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
        """The splits that a reader sees, made from those that were published."""
        return published

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict({side: tfds.features.Text() for side in self.SIDES}),
            supervised_keys=self.SIDES,
            disable_shuffling=True,  # TFDS would sort by the hash of the key; file order is what papers slice
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        manual = manual_directory(dl_manager)
        published = {
            split: [self.pair(line) for line in lines(self._content(path, manual=manual))]
            for split, path in self.published().items()
        }
        return {split: self._generate_examples(pairs) for split, pairs in self.divide(published).items()}

    def _generate_examples(self, pairs: list[Pair]) -> Iterator[tuple[int, dict[str, str]]]:
        for row, (source, target) in enumerate(pairs):
            yield row, {"source": source, "target": target}

    def _content(self, path: str, *, manual: Path | None) -> bytes:
        """The verified bytes of one published file, from the manual directory or else from the network."""
        name = posixpath.basename(path)
        placed = manual and next(filter(Path.is_file, (manual / (name + suffix) for suffix in SUFFIXES)), None)
        where, content = (str(placed), unpacked(placed)) if placed else (self.ROOT + path, self._fetched(path))
        verify(content, where=where, wanted=self.FILES[path])
        return content

    def _fetched(self, path: str) -> bytes:
        try:
            return fetch(self.ROOT + path)
        except (OSError, http.client.HTTPException) as error:
            names = ", ".join(sorted(posixpath.basename(file) for file in self.published().values()))
            raise FileNotFoundError(
                f"tfds:{self.info.name}: could not fetch {self.ROOT + path} ({error}); without a network, put {names} "
                "(plain or .gz) in a folder and name it with --data.manual-dir DIR"
            ) from error


def manual_directory(dl_manager: tfds.download.DownloadManager) -> Path | None:
    """The folder where the user put files by hand, or None where there is no such folder or it is empty."""
    try:
        return Path(os.fspath(dl_manager.manual_dir))
    except AssertionError:
        return None


def fetch(url: str) -> bytes:
    """What lies at a web address.

    Raises:
        OSError: if it can't be had.
    """
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  always ROOT, always https
        return response.read()


def unpacked(path: Path) -> bytes:
    """The content of a file, gunzipped where its name ends in .gz.

    Raises:
        ValueError: if it is called .gz and is not.
    """
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: wanted a gzip file ({error}); fetch it again, or put it there unpacked") from error


def verify(content: bytes, *, where: str, wanted: Sum) -> None:
    """Nothing, if the content is what was published.

    Raises:
        ValueError: if it is not.
    """
    got = (len(content), hashlib.sha256(content).hexdigest())
    if got != wanted:
        raise ValueError(
            f"{where}: wanted {wanted[0]} bytes with SHA-256 {wanted[1]}, got {got[0]} bytes with SHA-256 {got[1]}; "
            "this is not the file that was published, fetch it again"
        )


def lines(content: bytes) -> list[str]:
    """The lines of a UTF-8 file. A line ends at a line feed and at nothing else."""
    return content.decode("utf-8").removesuffix("\n").split("\n")
