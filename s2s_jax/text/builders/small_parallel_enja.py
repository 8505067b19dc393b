"""Small parallel corpus of Japanese and English: short sentences for a first translation model."""

from typing import ClassVar

import tensorflow_datasets as tfds

from s2s_jax.text.builders import Pair, PublishedPairs

LANGUAGES = ("ja", "en")
FILE_OF_SPLIT = {"train": "train", "validation": "dev", "test": "test"}


class SmallParallelEnja(PublishedPairs):
    """50,500 sentence pairs of 4 to 16 words from the Tanaka corpus, tokenized, English in lower case.

    The configurations are the two directions, ja-en and en-ja. Of the pairs 500 are for validation (upstream: dev) and
    500 for test.
    """

    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in ("ja-en", "en-ja")]
    ROOT = "https://raw.githubusercontent.com/odashi/small_parallel_enja/312408a11c5fbcbc09443bebb18121f7efdcd61e/"
    FILES: ClassVar = {
        "train.ja": (2784447, "fc81a1434349ec98a449d7ae9cd2530057f689637684ecfed3501ea6a8a07ecc"),
        "train.en": (1701356, "148b05dcd28638fe20ee84f2b1127001c80982be352007dda241fb759adadc76"),
        "dev.ja": (27781, "cd534f56b8639dc130f86a365e5ec0aa70042000bdd740a622fbbf8b6be4acca"),
        "dev.en": (17054, "04a2673449770657fd5e3b963cb856be3130923212b6db8ac7eaeef18f06c041"),
        "test.ja": (27793, "d37dc460a81b064e4106c8913eb11fa300da05cf3f58a7a5bbfec7e20947ddef"),
        "test.en": (17301, "45edb380749ec2b49cca7618fc5a7595fc9f791180672ba466b90c873a4aa8bf"),
    }
    HOMEPAGE = "https://github.com/odashi/small_parallel_enja"
    LICENSE = "Tanaka corpus: public domain; in Tatoeba: CC BY 2.0 FR"

    def published(self) -> dict[str, tuple[str, ...]]:
        """A Japanese and an English file for each split."""
        return {split: tuple(f"{name}.{language}" for language in LANGUAGES) for split, name in FILE_OF_SPLIT.items()}

    def pair(self, *lines: str) -> Pair:
        """The two lines in the direction of the configuration."""
        source, target = (self.builder_config_name or "").split("-")
        sides: dict[str, str] = dict(zip(LANGUAGES, lines, strict=True))
        return sides[source], sides[target]
