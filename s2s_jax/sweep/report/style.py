"""The CSS of figures, in the page and in files of their own, and that of the page."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

from s2s_jax.sweep.report.colors import DARK, LIGHT
from s2s_jax.sweep.report.svg import LEADS

# Marks of a variant stand in a group `.v`, whose color is --c: its own if it leads or is highlighted, else gray.
FIGURE_CSS = """
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;fill:var(--ink);
unicode-bidi:isolate;font-variant-numeric:tabular-nums}
svg .tick{fill:var(--mute)}
svg .head{font-weight:600}
svg .over{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
svg .end{fill:var(--c)}
.paper{fill:var(--paper)}
.ground,.near{fill:none;stroke:none}
.grid{stroke:var(--grid)}
.axis,.break{stroke:var(--mute);fill:none}
.zero{stroke:var(--ink);stroke-dasharray:3 3}
.curve{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}
.thread{fill:none;stroke:var(--c);stroke-width:1.3;stroke-opacity:.75}
.band{fill:var(--c);fill-opacity:.14}
.dot,.mean{fill:var(--c)}
.seed{fill:var(--paper);stroke:var(--c);stroke-width:1.4}
.reach{stroke:var(--c);stroke-width:2.4;stroke-linecap:round}
.knot{fill:var(--ink)}
"""
QUIET = (".band", ".dot", ".end")  # not drawn for variants in gray
MOST_BANDS = 4  # variants; of more of them no band is drawn, unless the page highlights it


@functools.cache
def _rules() -> list[tuple[str, str]]:
    flat = FIGURE_CSS.replace(",\n", ",").replace(";\n", ";")
    return [tuple(rule.rstrip("}").split("{")) for rule in flat.split("\n") if rule]  # type: ignore[misc]


def standalone_css(variants: int) -> str:
    """The CSS of a figure in a file of its own, without variables, which typesetting programs do not support."""
    colors = LIGHT.variants(variants)
    made = []
    for selector, body in _rules():
        for name, value in LIGHT.named.items():
            body = body.replace(f"var(--{name})", value)
        if "var(--c)" not in body:
            made.append(f"{selector}{{{body}}}")
            continue
        for place, color in enumerate(colors):
            leads = place < LEADS
            each = body.replace("var(--c)", color if leads else LIGHT.named["rest"])
            parts = selector.removeprefix("svg ").split(",")
            quiet = "display:none" if _is_quiet(parts, leads=leads, variants=variants) else each
            made.append(f"{','.join(f'.v{place} {part}' for part in parts)}{{{quiet}}}")
    return "".join(made)


def _is_quiet(selectors: Iterable[str], *, leads: bool, variants: int) -> bool:
    """Whether a mark of these selectors is not drawn."""
    return any(each in QUIET and not (leads and (each != ".band" or variants <= MOST_BANDS)) for each in selectors)


@functools.lru_cache(maxsize=1000)
def mark_style(classes: str, variant: int, variants: int) -> dict[str, str] | None:
    """What the rules give a mark of these classes: property -> value; None for one that is not drawn.

    Args:
        classes: with `text` for a text.
        variant: that it belongs to; negative for none.
        variants: number of variants of the report.
    """
    names = {name if name == "text" else f".{name}" for name in classes.split()}
    leads = 0 <= variant < LEADS
    if variant >= 0 and _is_quiet(names, leads=leads, variants=variants):
        return None
    colors = {**LIGHT.named, "c": LIGHT.variants(variants)[variant] if leads else LIGHT.named["rest"]}
    style: dict[str, str] = {}
    for selector, body in _rules():
        if names.intersection(selector.removeprefix("svg ").split(",")):
            pairs = (pair.split(":", 1) for pair in body.split(";") if pair)
            style |= {name: re.sub(r"var\(--(\w+)\)", lambda found: colors[found[1]], value) for name, value in pairs}
    return style


def page_css(variants: int) -> str:
    """The CSS of the page: light, dark and in print."""
    light, dark = LIGHT.variables(variants), DARK.variables(variants)
    own = "".join(f".v{place}{{--k:var(--v{place})}}" for place in range(variants))
    return (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f"{own}.v{{--c:var(--rest)}}.lead,.on{{--c:var(--k)}}\n{FIGURE_CSS}"
        + Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    )
