"""The colors of the page and its figures, light and dark: one per variant, the same in every figure.

The first eight are those of Okabe & Ito (2008), darkened in the light palette; the baseline is gray. Those after them
walk around the circle of hues of OKLCH (Ottosson 2020) by the golden angle. Their contrast to the background is at
least 3 : 1; that of text is at least 4.5 : 1 (a test measures both).
"""

import math
from typing import NamedTuple

GOLDEN_ANGLE = 137.508  # degrees


class Palette(NamedTuple):
    """Named colors, the first colors of variants, and the two lightnesses and the chroma of all further ones."""

    named: dict[str, str]
    first: tuple[str, ...]
    lightness: tuple[float, float]
    chroma: float

    def variants(self, count: int) -> list[str]:
        """The colors of so many variants, the baseline's first."""
        further = (
            _hex(self.lightness[place % 2], self.chroma, math.radians(place * GOLDEN_ANGLE))
            for place in range(len(self.first), count)
        )
        return [*self.first[:count], *further]

    def variables(self, count: int) -> str:
        """The colors as CSS variables, those of variants as `--v0`, `--v1`, ..."""
        variants = {f"v{place}": color for place, color in enumerate(self.variants(count))}
        return ";".join(f"--{name}:{color}" for name, color in (self.named | variants).items())


LIGHT = Palette(
    {
        "paper": "#ffffff",
        "raised": "#f4f5f7",
        "ink": "#1b1f24",
        "mute": "#57606a",
        "rule": "#d5dae0",
        "grid": "#e7eaee",
        "rest": "#a9b1ba",
        "link": "#0a58b0",
        "bad": "#b3261e",
        "heat": "#0b4a8f",
    },
    ("#4a525c", "#0072b2", "#c65100", "#008060", "#b0478a", "#8a6d00", "#5a4fcf", "#b3261e"),
    (0.45, 0.56),
    0.12,
)
DARK = Palette(
    {
        "paper": "#14171b",
        "raised": "#1d2126",
        "ink": "#e7eaee",
        "mute": "#a3acb7",
        "rule": "#363d46",
        "grid": "#272c33",
        "rest": "#5d6670",
        "link": "#7ab8ff",
        "bad": "#ff938a",
        "heat": "#8cc8ff",
    },
    ("#c3cad3", "#56b4e9", "#ff9a4d", "#33c79b", "#e58ac0", "#dcbc3c", "#a99dff", "#ff8a80"),
    (0.82, 0.7),
    0.11,
)


def _hex(lightness: float, chroma: float, hue: float) -> str:
    """A color of OKLCH in sRGB, its channels cut to the gamut."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    curved = (12.92 * each if each <= 0.0031308 else 1.055 * max(each, 0) ** (1 / 2.4) - 0.055 for each in linear)
    return "#" + "".join(f"{round(255 * min(1.0, max(0.0, each))):02x}" for each in curved)
