"""SVG elements as text: the same arguments give the same bytes.

Colors are CSS classes, so that one drawing serves light and dark pages and print; `style` defines them.
"""

import html
import itertools
import math
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

LEADS = 8  # variants in color at first: the baseline and the seven best
FONT = 12.0
GAP_PIXELS, OUTLIER_FRACTION = 26.0, 0.16  # of a broken axis: between its parts, and the part for outliers
MOST_OUTLIERS, LEAST_SPANS = 0.2, 5  # of the rows or curves that may stand apart, and of how many at least
LEAST_GAP = 0.3  # of the range: the empty stretch that is worth a break
ZERO_WIDTH_JOINERS = "\u200c\u200d"  # invisible, but they decide how adjacent letters join
VISIBLE_SPACE = "\u2423"
MARK_CARRIER = "\u25cc"


class Figure(NamedTuple):
    """A drawing with its size, its caption and the name of its file."""

    name: str
    title: str
    caption: str
    width: float
    height: float
    body: str

    def svg(self, style: str = "") -> str:
        """The SVG element; `style` is the CSS of a file of its own."""
        css = f"<style>{style}</style>" if style else ""
        paper = f'<rect class="paper" width="{pixels(self.width)}" height="{pixels(self.height)}"/>' if style else ""
        width, height = pixels(self.width), pixels(self.height)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="{escape_text(self.title)}">'
            f"{css}{paper}{self.body}</svg>"
        )


class Axis(NamedTuple):
    """A mapping of a range of numbers to a range of pixels; an empty stretch between `gap` may be left out."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False
    gap: tuple[float, float] | None = None  # the last number before it, and the first behind it
    outliers_first: bool = False  # whether the few are before the gap

    def place(self, value: float) -> float:
        """The pixel coordinate of a number."""
        if self.gap is None:
            return self._within(self.low, self.high, value, self.start, self.end)
        before, behind = self.break_pixels()
        if value <= self.gap[0]:
            return self._within(self.low, self.gap[0], value, self.start, before)
        if value >= self.gap[1]:
            return self._within(self.gap[1], self.high, value, behind, self.end)
        return self._within(*self.gap, value, before, behind)

    def break_pixels(self) -> tuple[float, float]:
        """Where a broken axis stops, and where it goes on."""
        direction = math.copysign(1, self.end - self.start)
        room = abs(self.end - self.start) - GAP_PIXELS
        before = room * (OUTLIER_FRACTION if self.outliers_first else 1 - OUTLIER_FRACTION)
        return self.start + direction * before, self.start + direction * (before + GAP_PIXELS)

    def _within(self, low: float, high: float, value: float, start: float, end: float) -> float:
        low, high, position = (math.log(each) if self.is_log else each for each in (low, high, value))
        fraction = (position - low) / (high - low) if high > low else 0.5
        return start + fraction * (end - start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers within the range; at most two on the side of the outliers."""
        if self.is_log:
            return _log_ticks(self.low, self.high, count)
        if self.gap is None:
            return _round_ticks(self.low, self.high, count)
        parts = [(self.low, self.gap[0]), (self.gap[1], self.high)]
        few, many = parts if self.outliers_first else reversed(parts)
        return sorted([sum(few) / 2, *_round_ticks(*many, max(2, count - 2))])


def axis_of(
    values: Sequence[float],
    *,
    start: float,
    end: float,
    is_log: bool = False,
    at_zero: bool = False,
    spans: Sequence[tuple[float, float]] = (),
) -> Axis:
    """An axis that contains all values, with a margin.

    Args:
        spans: the lowest and highest value of each row or curve; the axis breaks where few of them are far from all
            others, and never within one.
    """
    low, high = min(values), max(values)
    if at_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if is_log:
        margin = (high / low) ** 0.04 if high > low else 1.5
        return Axis(low / margin, high * margin, start, end, True)
    if gap := _empty_stretch(spans, [0.0] * at_zero):
        first = 2 * sum(span[1] <= gap[0] for span in spans) < len(spans)
        least = 0.02 * (gap[1] - gap[0])
        margins = (0.05 * (gap[0] - low) or least, 0.05 * (high - gap[1]) or least)
        ends = (gap[0] + margins[0], gap[1] - margins[1])
        return Axis(low - margins[0], high + margins[1], start, end, gap=ends, outliers_first=first)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(low - margin, high + margin, start, end)


def _empty_stretch(spans: Sequence[tuple[float, float]], also: Sequence[float]) -> tuple[float, float] | None:
    """The widest stretch between spans, if it is wide and few of them are on one side of it."""
    if len(spans) < LEAST_SPANS:
        return None
    widest, reached = (0.0, 0.0), -math.inf
    for low, high in sorted([*spans, *((each, each) for each in also)]):
        if math.isfinite(reached) and low - reached > widest[1] - widest[0]:
            widest = (reached, low)
        reached = max(reached, high)
    width, below = widest[1] - widest[0], sum(high <= widest[0] for _, high in spans)
    few = min(below, len(spans) - below)
    all_of = max(high for _, high in spans) - min(low for low, _ in spans)
    is_wide = width > LEAST_GAP * all_of > 0
    return widest if is_wide and 0 < few <= max(1, MOST_OUTLIERS * len(spans)) else None


def _round_ticks(low: float, high: float, count: int) -> list[float]:
    step = _round_step((high - low or 1.0) / count)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _round_step(rough: float) -> float:
    size = 10.0 ** math.floor(math.log10(rough))
    return next(step * size for step in (1, 2, 2.5, 5, 10) if step * size >= 0.75 * rough)


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**power for power in powers for digit in digits]
        found = [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(found) <= count + 2:
            return found
    return found[:: math.ceil(len(found) / count)]


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """The label of a tick, with the decimals that tell adjacent ticks apart."""
    if abs(value) >= 1e4:
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.3g}{letter}".replace("-", "\u2212")
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=abs(value) or 1.0)
    decimals = next((d for d in range(6) if abs(round(step, d) - step) < 1e-6 * step), 6)
    return (f"{value:.{decimals}f}" if abs(value) > 1e-12 else f"{0:.{decimals}f}").replace("-", "\u2212")


def pixels(value: float) -> str:
    """A coordinate rounded to a tenth of a pixel."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def variant_class(variant: int) -> str:
    """The CSS classes of a variant: its color, and whether it has it from the start."""
    return f"v v{variant}{' lead' if variant < LEADS else ''}"


def svg_variant(variant: int, row: int, label: str, body: str) -> str:
    """The marks of one row of the table in one figure; the page highlights and filters such groups."""
    about = f'class="{variant_class(variant)}" data-v="{variant}" data-r="{row}"'
    return f"<g {about}><title>{escape_text(label)}</title>{body}</g>"


def svg_break(axis: Axis, *, across: float, upright: bool) -> str:
    """Two strokes over the gap of a broken axis, which lies at `across` on the other axis."""
    if axis.gap is None:
        return ""
    parts = []
    for at in axis.break_pixels():
        ends = ((across - 5, at + 3), (across + 5, at - 3)) if upright else ((at - 3, across + 5), (at + 3, across - 5))
        parts.append(svg_path(ends, "break"))
    return "".join(parts)


def svg_line(x: float, y: float, to_x: float, to_y: float, kind: str) -> str:
    """A straight line with a CSS class."""
    return f'<line class="{kind}" x1="{pixels(x)}" y1="{pixels(y)}" x2="{pixels(to_x)}" y2="{pixels(to_y)}"/>'


def svg_path(points: Sequence[tuple[float, float]], kind: str, *, closed: bool = False) -> str:
    """A line through points, or with `closed` the area that it encloses."""
    steps = "L".join(f"{pixels(x)} {pixels(y)}" for x, y in points)
    return f'<path class="{kind}" d="M{steps}{"Z" if closed else ""}"/>' if points else ""


def svg_dot(x: float, y: float, kind: str, *, radius: float = 3.5) -> str:
    """A small circle with a CSS class."""
    return f'<circle class="{kind}" cx="{pixels(x)}" cy="{pixels(y)}" r="{pixels(radius)}"/>'


def svg_box(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A rectangle with a CSS class."""
    return f'<rect class="{kind}" x="{pixels(x)}" y="{pixels(y)}" width="{pixels(width)}" height="{pixels(height)}"/>'


def svg_text(x: float, y: float, text: str, kind: str = "label", *, anchor: str = "start", turned: float = 0.0) -> str:
    """An escaped text, isolated so that right-to-left text does not move what is beside it."""
    turn = f' transform="rotate({pixels(turned)} {pixels(x)} {pixels(y)})"' if turned else ""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{kind}" x="{pixels(x)}" y="{pixels(y)}"{place}{turn}>{escape_text(text)}</text>'


def escape_text(text: str) -> str:
    """The text escaped for HTML and SVG, with invisible characters as code points."""
    return html.escape(visible_text(text), quote=True)


def visible_text(text: str) -> str:
    """The text with each invisible character as its code point; a mark without a letter is put on a circle."""
    visible = "".join(_visible_letter(letter, alone=len(text) == 1) for letter in text)
    return MARK_CARRIER + visible if visible and unicodedata.category(visible[0]).startswith("M") else visible


def _visible_letter(letter: str, *, alone: bool) -> str:
    """Controls, lone surrogates and marks of direction as code points: they break XML, or move what is beside them."""
    if unicodedata.category(letter).startswith("C") and letter != "\n" and (alone or letter not in ZERO_WIDTH_JOINERS):
        return f"U+{ord(letter):04X}"
    return letter


def token_text(token: str, longest: int = 18) -> str:
    """A token as a label: a space is shown as an open box, and a long token is cut in the middle."""
    shown = visible_text(token.replace("\n", "U+000A")).replace(" ", VISIBLE_SPACE)
    return shorten(shown, longest) if shown else "∅"


def shorten(text: str, longest: int) -> str:
    """The text with at most `longest` letters, cut in the middle."""
    if len(text) <= longest:
        return text
    return f"{text[: (longest + 1) // 2 - 1]}…{text[len(text) - longest // 2 :]}"


def width_of(text: str, size: float = FONT) -> float:
    """The approximate width of a text in pixels: East Asian letters are square, marks have no width."""
    return size * sum(map(_width, text))


def _width(letter: str) -> float:
    if unicodedata.category(letter) == "Mn":
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    if letter.isupper():
        return 0.72
    return 0.34 if letter in "iljtfI.,:;'|! []()" else 0.85 if letter in "mwMW%@" else 0.58
