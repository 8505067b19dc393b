"""COGS: English sentences to logical forms, with a test of compositional generalization."""

from typing import ClassVar

from s2s_jax.text.builders import Pair, PublishedPairs

BEFORE_HEAD = ("*", ";", "AND")  # a head follows one of these, or is the first token


class Cogs(PublishedPairs):
    """COGS: sentence to logical form. Kim and Linzen 2020, arXiv:2010.05465.

    The splits train, validation (upstream: dev) and test have one distribution; gen holds 1,000 sentences for each of
    21 kinds of generalization. This is the release of 2022, in which 50 lines of gen were corrected after the paper.
    The third column of the files, the kind, is left out. A logical form names words by their positions, which is a gold
    alignment.
    """

    ROOT = "https://raw.githubusercontent.com/najoungkim/COGS/165a7b669eade971fa47bf568a2e51925360fed8/"
    FILES: ClassVar = {
        "data/train.tsv": (4146574, "220b3804b562c0156ee986eff1bdd15c27e52142549362a64f57baf86e304c78"),
        "data/dev.tsv": (522121, "ab66388a309c7ac1ad210c781a6a0ce12281a9ef24619a12422a752cef61bc21"),
        "data/test.tsv": (521111, "68f8e51e9f6d9cd22d64efe68dd21d7ea5ba327e9a2359481030161aea757035"),
        "data/gen.tsv": (5532102, "d013d9eee0bafc153f8decc85f42814ac97260f84964d980e1e2b84577b82361"),
    }
    HOMEPAGE = "https://github.com/najoungkim/COGS"
    LICENSE = "MIT"

    def published(self) -> dict[str, tuple[str, ...]]:
        """The four files; dev is named validation."""
        return {
            "train": ("data/train.tsv",),
            "validation": ("data/dev.tsv",),
            "test": ("data/test.tsv",),
            "gen": ("data/gen.tsv",),
        }

    def pair(self, *lines: str) -> Pair:
        """A sentence and its logical form, the first two of three columns."""
        sentence, logical_form, _ = lines[0].split("\t")
        return sentence, logical_form

    def alignment(self, source: str, target: str) -> str:
        """In `* cake ( x _ 4 )` both 4 and `cake` are aligned with word 4; a name with itself, if it occurs once."""
        words, tokens = source.split(" "), target.split(" ")
        links, head = [], 0  # head: the place of the predicate whose word number has not come yet
        for place, token in enumerate(tokens):
            if token in BEFORE_HEAD:
                head = place + 1
            elif tokens[max(0, place - 2) : place] == ["x", "_"]:
                links += [f"{token}-{each}" for each in (head, place) if each is not None]
                head = None
            elif token.istitle() and words.count(token) == 1:
                links.append(f"{words.index(token)}-{place}")
        return " ".join(links)
