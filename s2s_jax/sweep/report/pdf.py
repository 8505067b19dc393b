"""A chart as PDF, for LaTeX: the elements of its SVG, drawn by matplotlib with the same styles."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure as Page
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon, Rectangle

from s2s_jax.evaluate.glyphs import families_for
from s2s_jax.sweep.report.style import mark_style
from s2s_jax.sweep.report.svg import FONT, Figure

POINTS = 0.75  # of a CSS pixel
DASHES = {"3 3": (0, (3, 3))}


def save_pdf(figure: Figure, path: Path, *, variants: int) -> None:
    """Write the chart on a page of its size; the same chart gives the same bytes.

    Args:
        variants: number of variants of the report, which decides the colors.
    """
    page = Page(figsize=(figure.width * POINTS / 72, figure.height * POINTS / 72))
    canvas = FigureCanvasPdf(page)
    axes = page.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, figure.width), ylim=(figure.height, 0))
    axes.set_axis_off()
    _draw(axes, ElementTree.fromstring(figure.svg()), None, variants)  # noqa: S314 - our own
    canvas.print_pdf(path, metadata={"CreationDate": None, "Title": figure.title})


def _draw(axes: Axes, element: ElementTree.Element, variant: int | None, variants: int) -> None:
    variant = int(element.attrib.get("data-v", -1 if variant is None else variant))
    tag = element.tag.rpartition("}")[2]
    if tag in ("svg", "g"):
        for child in element:
            _draw(axes, child, variant, variants)
    elif tag != "title":
        classes = f"{'text ' if tag == 'text' else ''}{element.attrib.get('class', '')}"
        style = mark_style(classes, variant, variants)
        if style is not None:
            SHAPES[tag](axes, element, style)


def _numbers(element: ElementTree.Element, *names: str) -> list[float]:
    return [float(element.attrib.get(name, 0)) for name in names]


def _stroke(style: dict[str, str]) -> dict[str, Any]:
    return {
        "zorder": 2,  # everything is drawn in the order of the SVG
        "solid_capstyle": style.get("stroke-linecap", "butt"),
        "color": style.get("stroke", "none"),
        "linewidth": float(style.get("stroke-width", "1").removesuffix("px")) * POINTS,
        "linestyle": DASHES.get(style.get("stroke-dasharray", ""), "-"),
        "alpha": float(style.get("stroke-opacity", 1)),
    }


def _surface(style: dict[str, str]) -> dict[str, Any]:
    edge = style.get("stroke", "none")
    alpha = float(style.get("fill-opacity", 1))
    width = float(style.get("stroke-width", "1")) * POINTS if edge != "none" else 0.0
    return {"zorder": 2, "facecolor": style.get("fill", "black"), "edgecolor": edge, "linewidth": width, "alpha": alpha}


def _line(axes: Axes, element: ElementTree.Element, style: dict[str, str]) -> None:
    x, y, to_x, to_y = _numbers(element, "x1", "y1", "x2", "y2")
    axes.add_artist(Line2D([x, to_x], [y, to_y], **_stroke(style)))


def _path(axes: Axes, element: ElementTree.Element, style: dict[str, str]) -> None:
    steps = element.attrib["d"]
    points = [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", steps)]
    if steps.endswith("Z"):
        axes.add_artist(Polygon(points, **_surface(style)))
    elif style.get("stroke", "none") != "none":
        axes.add_artist(Line2D(*zip(*points, strict=True), **_stroke(style)))


def _circle(axes: Axes, element: ElementTree.Element, style: dict[str, str]) -> None:
    x, y, radius = _numbers(element, "cx", "cy", "r")
    axes.add_artist(Circle((x, y), radius, **_surface(style)))


def _rect(axes: Axes, element: ElementTree.Element, style: dict[str, str]) -> None:
    x, y, width, height = _numbers(element, "x", "y", "width", "height")
    axes.add_artist(Rectangle((x, y), width, height, **_surface(style)))


def _text(axes: Axes, element: ElementTree.Element, style: dict[str, str]) -> None:
    text = element.text or ""
    x, y = _numbers(element, "x", "y")
    turned = re.search(r"rotate\((-?[\d.]+)", element.attrib.get("transform", ""))
    place = {"end": "right", "middle": "center"}.get(element.attrib.get("text-anchor", ""), "left")
    weight = "bold" if style.get("font-weight") == "600" else "normal"
    font = FontProperties(family=families_for(text), size=FONT * POINTS, weight=weight)
    axes.text(
        *(x, y, text),
        ha=place,
        va="baseline",
        color=style.get("fill", "black"),
        fontproperties=font,
        rotation=-float(turned[1]) if turned else 0,
        rotation_mode="anchor",
        zorder=2,
        parse_math=False,
    )


SHAPES = {"line": _line, "path": _path, "circle": _circle, "rect": _rect, "text": _text}
