"""Number formats: a mean has two digits of its standard deviation, and a column one number of decimals."""

import math
from collections.abc import Iterable

from s2s_jax.sweep.significance import NEW_SENTENCES, THIS_TEST_SET

STARS = {None: "", THIS_TEST_SET: "*", NEW_SENTENCES: "**"}  # the widest population for which a difference holds
MISSING = "–"
MINUS = "\u2212"
THIN = "\u202f"  # a narrow no-break space between thousands


def decimals_for(sizes: Iterable[float | None]) -> int:
    """Decimals that show two digits of the median standard deviation; 3 where there is none."""
    known = sorted(size for size in sizes if size and math.isfinite(size))
    if not known:
        return 3
    return min(5, max(0, 1 - math.floor(math.log10(known[len(known) // 2]))))


def plain(value: float | None, decimals: int) -> str:
    """The number with a typographic minus sign; a dash for None."""
    if value is None:
        return MISSING
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    return f"{value:.{decimals}f}".replace("-", MINUS) if round(value, decimals) else f"{0:.{decimals}f}"


def signed(value: float | None, decimals: int) -> str:
    """The number with its sign, plus included; zero has no sign."""
    text = plain(value, decimals)
    positive = value is not None and math.isfinite(value) and round(value, decimals) > 0
    return f"+{text}" if positive else text


def with_spread(mean: float | None, sd: float | None, decimals: int) -> str:
    """Mean ± standard deviation; the mean alone without a deviation (one seed)."""
    text = plain(mean, decimals)
    return text if mean is None or sd is None else f"{text} ± {plain(sd, decimals)}"


def range_of(low: float, high: float, decimals: int) -> str:
    """The ends of an interval of differences."""
    return f"[{signed(low, decimals)}, {signed(high, decimals)}]"


def p_value(p: float | None) -> str:
    """The p value with three decimals, and never as 0."""
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.0005 else f"{p:.3f}"


def whole(value: float | None) -> str:
    """A rounded number with narrow spaces as thousands separators."""
    return MISSING if value is None else f"{value:,.0f}".replace(",", THIN)


def compact(value: float | None) -> str:
    """The number with three digits and a letter, such as 12.3 M."""
    if value is None or not math.isfinite(value):
        return MISSING
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{_three(value / size)}{THIN}{letter}"
    return _three(value) if value else "0"


def _three(value: float) -> str:
    return f"{value:.{min(2, max(0, 2 - math.floor(math.log10(abs(value)))))}f}"


def mean_of(values: Iterable[float]) -> float | None:
    """The mean of the values, or None without any."""
    known = list(values)
    return math.fsum(known) / len(known) if known else None
