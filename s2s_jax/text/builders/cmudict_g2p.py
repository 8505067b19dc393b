"""CMUdict: English spelling to pronunciation."""

from typing import ClassVar

from s2s_jax.text.builders import HELD_OUT, Pair, PublishedPairs


class CmudictG2p(PublishedPairs):
    """CMUdict, spelling to phones: `ABACUS` -> `AE B AH K AH S`, in the split that the papers share (g014b2b).

    39 phones without stress digits, 27 letters (A to Z and the apostrophe). A word has one line per
    pronunciation. No word of the test split is in the train file. The data set has no validation split: every 20th
    distinct word of the train file, with all its lines, is held out here, so that no word is in two splits.
    """

    ROOT = (
        "https://raw.githubusercontent.com/steveash/jg2p/9ef911031f2762b15f5b731c33dd968f523e181f/"
        "jg2p-core/src/test/resources/"
    )
    FILES: ClassVar = {
        "g014b2b.train": (2717073, "5882433c3a14a9a0614b5f724ce74872851092e816852c82d6b74913b2085384"),
        "g014b2b.test": (306441, "9beeeed7726f4954bee1dbb3c5b41f50a71227557eca70b259fbd63c9cad1bb9"),
    }
    HOMEPAGE = "https://github.com/steveash/jg2p"
    LICENSE = "CMUdict: BSD 2-clause; the split: Apache-2.0"

    def published(self) -> dict[str, tuple[str, ...]]:
        """The train and the test file."""
        return {"train": ("g014b2b.train",), "test": ("g014b2b.test",)}

    def pair(self, *lines: str) -> Pair:
        """A word and its phones, separated by a tab."""
        word, phones = lines[0].split("\t")
        return word, phones

    def divide(self, published: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
        """Train without every 20th of its distinct words, validation of these words, test."""
        words = dict.fromkeys(word for word, _ in published["train"])  # distinct, in file order
        held_out = set(list(words)[HELD_OUT - 1 :: HELD_OUT])
        return {
            "train": [pair for pair in published["train"] if pair[0] not in held_out],
            "validation": [pair for pair in published["train"] if pair[0] in held_out],
            "test": published["test"],
        }
