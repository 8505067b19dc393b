"""A report of the irregularities in the data, of what was done about each, and of their places.

Nothing is dropped silently: every reader writes here, the run prints the report and keeps it in `data_report.json`.
"""

import dataclasses

MAX_PLACES = 5  # that are kept for each reason


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

    def add(self, reason: str, place: str) -> None:
        """Count one occurrence of a reason, at a place such as `file:line`."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        places = self.places.setdefault(reason, [])
        if len(places) < MAX_PLACES:
            places.append(place)

    def lines(self) -> list[str]:
        """The report as text: the pairs kept, then one line per reason, the most frequent first."""
        reasons = sorted(self.counts.items(), key=lambda item: -item[1])
        head = f"{self.kept:,} of {self.read:,} pairs kept"
        return [head, *(f"{count:,} x {reason} ({', '.join(self.places[reason])})" for reason, count in reasons)]
