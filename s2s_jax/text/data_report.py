"""A report of the irregularities in the data, of what was done about each, and of their places.

Nothing is dropped silently: every reader writes here, the run prints the report and keeps it in `data_report.json`.
"""

import array
import dataclasses
from typing import Any

MAX_PLACES = 5  # that are kept for each reason


class Places:
    """The places of many pairs, such as `file:line`, in sixteen bytes each: a string takes a hundred."""

    def __init__(self):
        self._names: dict[str, int] = {}
        self._name_of, self._number_of = array.array("q"), array.array("q")

    def append(self, place: str) -> None:
        """Add the place of the next pair."""
        name, colon, number = place.rpartition(":")
        value = int(number) if colon and number.isdecimal() else -1
        if value < 0 or str(value) != number:
            name, value = place, -1
        self._name_of.append(self._names.setdefault(name, len(self._names)))
        self._number_of.append(value)

    def __len__(self) -> int:
        return len(self._name_of)

    def __getitem__(self, index: int) -> str:
        name, number = list(self._names)[self._name_of[index]], self._number_of[index]
        return name if number < 0 else f"{name}:{number}"


@dataclasses.dataclass
class DataReport:
    """Counts by reason, and the first places of each."""

    read: int = 0
    """Pairs that were read."""
    kept: int = 0
    """Pairs that are used."""
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    """Occurrences of each reason."""
    places: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """The first places of each reason, as `file:line`."""
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    """Fractions of the examples, as `data_checks` computes them."""
    corpora: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Of several training corpora, the spec of each, its pairs, its share of an epoch and the copies that this takes;
    empty for one corpus."""
    corpus_sizes: list[int] = dataclasses.field(default_factory=list, compare=False, repr=False)
    """The pairs of each training corpus that are used, before data.max_length; not in `record`."""
    kept_places: Places = dataclasses.field(default_factory=Places, compare=False, repr=False)
    """The place of each example that `read_split` returned; not in `record`."""

    def add(self, reason: str, place: str) -> None:
        """Count one occurrence of a reason, at a place such as `file:line`."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        places = self.places.setdefault(reason, [])
        if len(places) < MAX_PLACES:
            places.append(place)

    def lines(self) -> list[str]:
        """The report as text: the pairs kept, one line per reason, the most frequent first, and one of all shares."""
        reasons = sorted(self.counts.items(), key=lambda item: -item[1])
        head = f"{self.kept:,} of {self.read:,} pairs kept"
        shares = ", ".join(f"{share:.2%} {name}" for name, share in self.shares.items() if share)
        return [
            head,
            *(f"{count:,} x {reason} ({', '.join(self.places[reason])})" for reason, count in reasons),
            *([shares] if shares else []),
            *(
                f"{each['pairs']:,} pairs of {each['corpus']}, {each['share']:.1%} of an epoch "
                f"({each['copies']:.3g} times each)"
                for each in self.corpora
            ),
        ]

    def record(self) -> dict[str, Any]:
        """The report as JSON values, for `data_report.json`."""
        names = ("read", "kept", "counts", "places", "shares", *["corpora"] * bool(self.corpora))
        return {name: getattr(self, name) for name in names}
