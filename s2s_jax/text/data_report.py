"""What was found odd in the data, what was done about it, and where?

Nothing is dropped silently: every reader writes here, the run prints it and keeps it in `data_report.json`.
"""

import dataclasses

FIRST = 5  # places kept for each reason


@dataclasses.dataclass
class DataReport:
    """Counts by reason, and the first places of each."""

    read: int = 0
    """Pairs read."""
    kept: int = 0
    """Pairs that go on."""
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    """How often each reason occurred."""
    places: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """The first places of each reason, as `file:line`."""

    def add(self, reason: str, place: str) -> None:
        """Count one occurrence."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        places = self.places.setdefault(reason, [])
        if len(places) < FIRST:
            places.append(place)

    def lines(self) -> list[str]:
        """The report for a person, a line a reason."""
        head = f"{self.kept:,} of {self.read:,} pairs kept"
        return [head, *(f"{count:,} x {reason} ({', '.join(self.places[reason])})" for reason, count in self._sorted())]

    def _sorted(self):
        return sorted(self.counts.items(), key=lambda item: -item[1])
