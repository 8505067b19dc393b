// Weights of source tokens per target token, as ribbons between two rows of tokens or as a heat map.
import { digits, draw, readsLeftwards, shown, widthOf } from "./dom.js";

const LEAST = 0.01; // weights below it are not drawn
const GAP = 8;
const CELL = 22;

function places(tokens) {
  // centers and widths of the tokens of a row, from the right where the tokens are read from there
  const widths = tokens.map((token) => Math.max(16, widthOf(shown(token)) + 6));
  const total = widths.reduce((sum, width) => sum + width + GAP, GAP);
  let left = GAP;
  const centers = widths.map((width) => {
    const center = left + width / 2;
    left += width + GAP;
    return center;
  });
  return { centers: readsLeftwards(tokens) ? centers.map((center) => total - center) : centers, total };
}

function label(kind, index, token, x, y, attributes = {}) {
  return draw("text", { x, y, "text-anchor": "middle", [`data-${kind}`]: index, ...attributes }, shown(token));
}

function strength(weights) {
  // occlusion may have numbers below 0, and gradients any size: the largest one is drawn in full
  const largest = Math.max(...weights.flat().map((weight) => Math.abs(weight ?? 0)), 1e-12);
  return (weight) => Math.abs(weight ?? 0) / Math.max(largest, weights.isDistribution ? 1 : 0);
}

export function ribbons(source, target, weights, title) {
  const above = places(source);
  const below = places(target);
  const width = Math.max(above.total, below.total);
  const [top, bottom] = [18, 150];
  const shift = (row) => (width - row.total) / 2;
  const scaled = strength(weights);
  const curves = [];
  weights.forEach((row, t) => row.forEach((weight, s) => {
    const part = scaled(weight);
    if (part < LEAST) return;
    const [from, to] = [above.centers[s] + shift(above), below.centers[t] + shift(below)];
    const middle = (top + bottom) / 2;
    const path = `M${from} ${top + 5}C${from} ${middle} ${to} ${middle} ${to} ${bottom - 15}`;
    curves.push(draw("path", {
      class: "ribbon", d: path, "stroke-width": (1 + 7 * part).toFixed(2), "stroke-opacity": (0.15 + 0.85 * part).toFixed(3),
      "data-s": s, "data-t": t,
    }, draw("title", {}, `${shown(source[s])} \u2192 ${shown(target[t])}: ${digits(weight, 3)}`)));
  }));
  return draw("svg", { width, height: bottom + 8, viewBox: `0 0 ${width} ${bottom + 8}`, role: "img", "aria-label": title },
    curves,
    source.map((token, s) => label("s", s, token, above.centers[s] + shift(above), top)),
    target.map((token, t) => label("t", t, token, below.centers[t] + shift(below), bottom)));
}

export function heatMap(source, target, weights, title) {
  const left = Math.max(...target.map((token) => widthOf(shown(token)))) + 14;
  const top = Math.max(...source.map((token) => widthOf(shown(token)))) + 14;
  const [width, height] = [left + source.length * CELL + 6, top + target.length * CELL + 6];
  const column = (s) => left + CELL * (readsLeftwards(source) ? source.length - 1 - s : s);
  const scaled = strength(weights);
  const cells = [];
  weights.forEach((row, t) => row.forEach((weight, s) => {
    const part = scaled(weight);
    if (part < 0.004) return;
    cells.push(draw("rect", {
      class: weight < 0 ? "cell rise" : "cell", x: column(s), y: top + t * CELL, width: CELL - 1, height: CELL - 1,
      "fill-opacity": part.toFixed(3), "data-s": s, "data-t": t,
    }, draw("title", {}, `${shown(source[s])}, ${shown(target[t])}: ${digits(weight, 3)}`)));
  }));
  return draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title },
    draw("rect", { class: "grid", x: left, y: top, width: source.length * CELL, height: target.length * CELL }),
    cells,
    source.map((token, s) => {
      const [x, y] = [column(s) + CELL / 2 + 4, top - 6];
      return draw("text", { x, y, transform: `rotate(-90 ${x} ${y})`, "data-s": s }, shown(token));
    }),
    target.map((token, t) => draw("text", { x: left - 6, y: top + t * CELL + CELL / 2 + 4, "text-anchor": "end", "data-t": t }, shown(token))));
}

export function linkHover(root, weights) {
  // hovering or focusing what belongs to a token of one side marks what belongs to it on the other
  const scaled = strength(weights);
  const clear = () => {
    for (const element of root.querySelectorAll(".on, .dim")) {
      element.classList.remove("on", "dim");
      element.style.removeProperty("--weight");
    }
  };
  const mark = (event) => {
    const from = event.target.closest("[data-s], [data-t]");
    if (!from || !root.contains(from)) return;
    clear();
    const [s, t] = [from.dataset.s, from.dataset.t];
    const weight = (si, ti) => scaled((weights[ti] || [])[si]);
    for (const element of root.querySelectorAll("[data-s], [data-t]")) {
      const [es, et] = [element.dataset.s, element.dataset.t];
      if (es !== undefined && et !== undefined) {
        element.classList.toggle("dim", (s !== undefined && es !== s) || (t !== undefined && et !== t));
        continue;
      }
      let part = 0;
      if (es !== undefined) part = es === s ? 1 : t !== undefined && s === undefined ? weight(es, t) : 0;
      if (et !== undefined) part = et === t ? 1 : s !== undefined && t === undefined ? weight(s, et) : 0;
      if (part >= 0.05) {
        element.classList.add("on");
        element.style.setProperty("--weight", part.toFixed(3));
      }
    }
  };
  for (const name of ["pointerover", "focusin"]) root.addEventListener(name, mark);
  for (const name of ["pointerleave", "focusout"]) root.addEventListener(name, clear);
}
