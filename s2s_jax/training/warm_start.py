"""A warm start: which parameters of another run fit a new one, leaf by leaf, and row by row where tokens differ."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from s2s_jax.validation import check_fields

CHOICE = re.compile(r"(?P<run>.+)@(?P<which>best|latest|(?P<step>\d+)|average:(?P<average>\d+))")
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmStartConfig:
    """Parameters of another run that a new one starts from, instead of random ones."""

    run: str = ""
    """The other run: RUN, RUN@STEP, RUN@best (as RUN alone), RUN@latest, or RUN@average:N for the mean of its N newest
    checkpoints; `--from` for short. Parameters are matched by path and shape, embeddings and output rows by token."""
    tokenizers: bool = True
    """Use the tokenizers of that run, so that no setting of `tokenizer` is read; false for those of the settings."""

    def __post_init__(self):
        check_fields(self, "warm_start")
        if self.run:
            source_of(self.run)

    @property
    def takes_tokenizers(self) -> bool:
        """Whether the tokenizers are those of the other run."""
        return bool(self.run) and self.tokenizers


class Source(NamedTuple):
    """Which parameters of which run."""

    directory: str
    step: int | Literal["best", "latest"] = "best"
    average: int = 0  # of so many of the newest checkpoints; 0 for none


def source_of(text: str) -> Source:
    """What `warm_start.run` means; a directory whose name holds an @ may be named without a choice behind it.

    Raises:
        ValueError: what stands behind an @ is no choice of a checkpoint.
    """
    match = CHOICE.fullmatch(text)
    if match is None:
        directory, at, which = text.rpartition("@")
        if at and "/" not in which and directory:
            raise ValueError(
                f"warm_start.run={text}: behind the @ stand a step, best, latest or average:N, got {which!r}; write "
                f"{text}@best where {text} is the directory."
            )
        return Source(text)
    if match["average"]:
        if int(match["average"]) < 1:
            raise ValueError(f"warm_start.run={text}: average:N needs a positive N, got {match['average']}.")
        return Source(match["run"], average=int(match["average"]))
    if match["step"]:
        return Source(match["run"], int(match["step"]))
    return Source(match["run"], "latest" if match["which"] == "latest" else "best")


class VocabularyAxis(NamedTuple):
    """The axis of a parameter that has an entry per token of a side."""

    axis: int
    side: str  # source or target


class SharedTokens(NamedTuple):
    """The ids of the tokens that two vocabularies share, in the one that is trained and in the other."""

    here: Int[np.ndarray, " N"]
    there: Int[np.ndarray, " N"]


class TakenLeaf(NamedTuple):
    """The part of a parameter that comes from elsewhere."""

    values: np.ndarray
    axis: int = 0
    ids: Int[np.ndarray, " N"] | None = None  # the indices along the axis that `values` are for; None for all

    def put_into(self, leaf: np.ndarray) -> np.ndarray:
        """The parameter with this part."""
        if self.ids is None:
            return self.values
        leaf = np.array(leaf)
        np.moveaxis(leaf, self.axis, 0)[self.ids] = np.moveaxis(self.values, self.axis, 0)
        return leaf


@dataclasses.dataclass
class Fit:
    """What of another run's parameters fits, and what does not; by dotted path."""

    taken: dict[str, TakenLeaf] = dataclasses.field(default_factory=dict)
    by_token: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)  # tokens taken, of so many here
    other_shape: dict[str, tuple[Shape, Shape]] = dataclasses.field(default_factory=dict)  # here, there
    missing: list[str] = dataclasses.field(default_factory=list)  # there
    unused: list[str] = dataclasses.field(default_factory=list)  # here

    def record(self) -> dict[str, Any]:
        """All of it as JSON, but for the numbers."""
        return {
            "taken": [path for path in self.taken if path not in self.by_token],
            "taken_by_token": {path: {"known": some, "of": all_} for path, (some, all_) in self.by_token.items()},
            "other_shape": {path: {"here": here, "there": there} for path, (here, there) in self.other_shape.items()},
            "not_there": self.missing,
            "not_used_here": self.unused,
        }

    def lines(self) -> list[str]:
        """All of it as lines to print, grouped where there are many."""
        whole = [path for path in self.taken if path not in self.by_token]
        tokens = [f"{path} ({some:,} of {all_:,} tokens)" for path, (some, all_) in self.by_token.items()]
        shapes = [
            f"{path} ({_text(here)} here, {_text(there)} there)" for path, (here, there) in self.other_shape.items()
        ]
        parts = {
            "taken": grouped(whole),
            "taken by token": tokens,
            "left as initialized, of another shape": shapes,
            "left as initialized, not there": grouped(self.missing),
            "there, and not used here": grouped(self.unused),
        }
        return [f"  {title}: {', '.join(entries)}" for title, entries in parts.items() if entries]


def fit(
    new: Mapping[str, Shape],
    old: Mapping[str, np.ndarray],
    axes: Mapping[str, VocabularyAxis],
    tokens: Mapping[str, SharedTokens],
) -> Fit:
    """What of the parameters `old` fits those of the shapes `new`.

    Args:
        axes: of those parameters of the new run that have an entry per token.
        tokens: what is shared by the vocabularies of a side; sides that have the same tokens are left out.
    """
    found = Fit(unused=[path for path in old if path not in new])
    for path, shape in new.items():
        place = axes.get(path)
        shared = None if place is None else tokens.get(place.side)
        if path not in old:
            found.missing.append(path)
        elif place is None or shared is None:
            if old[path].shape == shape:
                found.taken[path] = TakenLeaf(old[path])
            else:
                found.other_shape[path] = (shape, old[path].shape)
        elif _without(old[path].shape, place.axis) == _without(shape, place.axis):
            values = np.take(old[path], shared.there, place.axis)
            found.taken[path] = TakenLeaf(values, place.axis, shared.here)
            found.by_token[path] = (len(shared.here), shape[place.axis])
        else:
            found.other_shape[path] = (shape, old[path].shape)
    return found


def grouped(paths: list[str], *, most: int = 8) -> list[str]:
    """The paths; where they are more than `most`, those of one group together, such as `encoder.* (8)`."""
    if len(paths) <= most:
        return paths
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(path.split(".")[0], []).append(path)
    return [f"{name}.* ({len(those)})" if len(those) > 1 else those[0] for name, those in groups.items()]


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a number"
