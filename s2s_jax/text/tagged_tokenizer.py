"""A tokenizer that knows tags: tokens of their own before a line, which say where its pair came from.

A tag is one token whatever the tokenizer inside makes of its text, and only at the start of a line, alone or followed
by a space. Caswell et al. 2019, arXiv:1906.06442, section 3.2.
"""

from collections.abc import Sequence
from typing import Any

from s2s_jax.text.symbol_tokenizers import Span


class TaggedTokenizer:
    """The ids of another tokenizer, with those of the tags after them.

    Args:
        inner: a `Tokenizer`.
        tags: texts without spaces.
    """

    def __init__(self, inner: Any, tags: Sequence[str]):
        self.inner, self.tags = inner, list(tags)

    @property
    def type(self) -> str:
        """The type of the tokenizer inside: tags change nothing about other tokens."""
        return self.inner.type

    @property
    def size(self) -> int:
        """The number of ids, including the special ones and the tags."""
        return self.inner.size + len(self.tags)

    def tag_id(self, tag: str) -> int:
        """The id of a tag."""
        return self.inner.size + self.tags.index(tag)

    def tag_of(self, line: str) -> str:
        """The tag that a line starts with; empty where there is none."""
        return next((tag for tag in self.tags if line == tag or line.startswith(f"{tag} ")), "")

    def encode(self, line: str) -> list[int]:
        """The ids of a line, without BOS and EOS."""
        tag = self.tag_of(line)
        return [self.tag_id(tag), *self.inner.encode(_after(tag, line))] if tag else self.inner.encode(line)

    def tokenize(self, line: str) -> list[str]:
        """The text of each id of `encode`."""
        tag = self.tag_of(line)
        return [tag, *self.inner.tokenize(_after(tag, line))] if tag else self.inner.tokenize(line)

    def spans(self, line: str) -> list[Span]:
        """The characters of the line that each id of `encode` stands for."""
        tag = self.tag_of(line)
        if not tag:
            return self.inner.spans(line)
        moved = len(tag) + 1
        return [(0, len(tag)), *((first + moved, last + moved) for first, last in self.inner.spans(_after(tag, line)))]

    def decode(self, ids: Sequence[int], unknown: Sequence[str] = ()) -> str:
        """The line that ids stand for; a tag at its start is followed by a space, any other one is left out."""
        tag = self.tags[ids[0] - self.inner.size] if len(ids) and ids[0] >= self.inner.size else ""
        text = self.inner.decode([number for number in ids if number < self.inner.size], unknown)
        return f"{tag} {text}" if tag else text

    def symbols(self, ids: Sequence[int]) -> list[str]:
        """The text that each id is displayed as."""
        size = self.inner.size
        return [self.tags[number - size] if number >= size else self.inner.symbols([number])[0] for number in ids]

    def state(self) -> dict:
        """The tags, and the state of the tokenizer inside."""
        return {"type": "tagged", "tags": self.tags, "tokenizer": self.inner.state()}


def untagged(tokenizer: Any) -> Any:
    """The tokenizer inside one that knows tags; any other one as it is."""
    return tokenizer.inner if isinstance(tokenizer, TaggedTokenizer) else tokenizer


def _after(tag: str, line: str) -> str:
    """The line without the tag that it starts with."""
    return line[len(tag) + 1 :]
