"""How is a picture drawn with lines and letters only? SVG as text: the same bytes at every call.

Colors are classes, so that one drawing serves light, dark and paper; `style` holds what they mean.
"""

import html
import itertools
import math
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

SERIES = 8  # colors; the ninth series has the first color and another dash
FONT = 12.0
JOINERS = "\u200c\u200d"  # invisible, but they say how their neighbors join
OPEN_BOX = "\u2423"  # the visible space
DOTTED_CIRCLE = "\u25cc"


class Figure(NamedTuple):
    """A drawing of one size, its caption and the name of its file."""

    name: str
    title: str
    caption: str
    width: float
    height: float
    body: str

    def svg(self, style: str = "") -> str:
        """The SVG element; `style` is for one that stands alone."""
        inside = f"<style>{style}</style>" if style else ""
        paper = f'<rect class="paper" width="{n(self.width)}" height="{n(self.height)}"/>' if style else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {n(self.width)} {n(self.height)}" '
            f'width="{n(self.width)}" height="{n(self.height)}" role="img" aria-label="{literal(self.title)}">'
            f"{inside}{paper}{self.body}</svg>"
        )


class Axis(NamedTuple):
    """A range of numbers laid along a range of pixels."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """The pixel of a number."""
        low, high, at = (math.log(each) if self.is_log else each for each in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers inside the range."""
        if self.is_log:
            return _log_ticks(self.low, self.high, count)
        span = self.high - self.low or 1.0
        step = _round_step(span / count)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def axis_of(values: Sequence[float], *, start: float, end: float, is_log: bool = False, at_zero: bool = False) -> Axis:
    """An axis that holds all of the values with a little air."""
    low, high = min(values), max(values)
    if at_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if is_log:
        air = (high / low) ** 0.04 if high > low else 1.5
        return Axis(low / air, high * air, start, end, True)
    air = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(low - air, high + air, start, end)


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
    """A tick's number with as many decimals as its neighbors need."""
    if abs(value) >= 1e4:
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.3g}{letter}".replace("-", "\u2212")
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=abs(value) or 1.0)
    decimals = next((d for d in range(6) if abs(round(step, d) - step) < 1e-6 * step), 6)
    return (f"{value:.{decimals}f}" if abs(value) > 1e-12 else f"{0:.{decimals}f}").replace("-", "\u2212")


def n(value: float) -> str:
    """A pixel to a tenth."""
    text = f"{value:.1f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text


def line(x: float, y: float, to_x: float, to_y: float, kind: str) -> str:
    """A straight line of a class."""
    return f'<line class="{kind}" x1="{n(x)}" y1="{n(y)}" x2="{n(to_x)}" y2="{n(to_y)}"/>'


def path(points: Sequence[tuple[float, float]], kind: str, *, closed: bool = False) -> str:
    """A line through points, or the area inside of it."""
    steps = "L".join(f"{n(x)} {n(y)}" for x, y in points)
    return f'<path class="{kind}" d="M{steps}{"Z" if closed else ""}"/>' if points else ""


def dot(x: float, y: float, kind: str, *, radius: float = 3.5) -> str:
    """A small circle."""
    return f'<circle class="{kind}" cx="{n(x)}" cy="{n(y)}" r="{n(radius)}"/>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A rectangle."""
    return f'<rect class="{kind}" x="{n(x)}" y="{n(y)}" width="{n(width)}" height="{n(height)}"/>'


def text(x: float, y: float, words: str, kind: str = "label", *, anchor: str = "start", turned: float = 0.0) -> str:
    """Words, taken literally; each stands alone, so that right-to-left ones move no neighbor."""
    turn = f' transform="rotate({n(turned)} {n(x)} {n(y)})"' if turned else ""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{kind}" x="{n(x)}" y="{n(y)}"{place}{turn}>{literal(words)}</text>'


def literal(words: str) -> str:
    """The words as a page must spell them so that they are seen as they are."""
    return html.escape(visible(words), quote=True)


def visible(words: str) -> str:
    """The words with each letter that cannot be seen as its code point; a mark without a letter sits on a circle."""
    seen = "".join(_seen(letter, alone=len(words) == 1) for letter in words)
    return DOTTED_CIRCLE + seen if seen and unicodedata.category(seen[0]).startswith("M") else seen


def _seen(letter: str, *, alone: bool) -> str:
    """Controls, lone surrogates and marks of direction by number: they break XML, or move what stands beside them."""
    if unicodedata.category(letter).startswith("C") and letter != "\n" and (alone or letter not in JOINERS):
        return f"U+{ord(letter):04X}"
    return letter


def token_text(token: str, longest: int = 18) -> str:
    """A token as a label: a space is an open box, a long one is cut in the middle."""
    shown = visible(token.replace("\n", "U+000A")).replace(" ", OPEN_BOX)
    return shorten(shown, longest) if shown else "∅"


def shorten(words: str, longest: int) -> str:
    """At most so many letters, cut in the middle."""
    if len(words) <= longest:
        return words
    return f"{words[: (longest + 1) // 2 - 1]}…{words[len(words) - longest // 2 :]}"


def width_of(words: str, size: float = FONT) -> float:
    """About how wide the words are: East Asian letters are square, narrow ones narrow, marks take no room."""
    return size * sum(map(_width, words))


def _width(letter: str) -> float:
    if unicodedata.category(letter) == "Mn":
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    if letter.isupper():
        return 0.72
    return 0.34 if letter in "iljtfI.,:;'|! []()" else 0.85 if letter in "mwMW%@" else 0.58
