// The beam as a tree: one column per step, the likeliest hypothesis on top.
import { digits, draw, shown, widthOf } from "./dom.js";

const ROW = 30;
const FATES = {
  continued: "went on", pruned: "kept, then lost", rejected: "not kept", ended: "complete", open: "still open",
};

export function pathOf(nodes, number) {
  const ids = [];
  for (let node = number; node > 0; node = nodes[node].parent) ids.unshift(nodes[node].id);
  return ids;
}

function chosenNodes(nodes, ids) {
  let at = 0;
  const chosen = new Set([0]);
  for (const id of ids) {
    const next = nodes.findIndex((node, number) => number > 0 && node.parent === at && node.id === id);
    if (next < 0) break;
    chosen.add(next);
    at = next;
  }
  return chosen;
}

export function beamTree(nodes, { ids, rejected, force }) {
  const visible = nodes.map((node, number) => number).filter((number) => rejected || nodes[number].fate !== "rejected");
  const columns = new Map();
  for (const number of visible) {
    const step = nodes[number].step;
    columns.set(step, [...(columns.get(step) || []), number]);
  }
  const [at, chosen] = [new Map(), chosenNodes(nodes, ids)];
  let left = 6;
  let rows = 1;
  for (const step of [...columns.keys()].sort((one, other) => one - other)) {
    const column = columns.get(step).sort((one, other) => (nodes[other].total ?? -1e9) - (nodes[one].total ?? -1e9));
    const width = Math.max(...column.map((number) => Math.max(widthOf(shown(nodes[number].token)), 34))) + 12;
    column.forEach((number, row) => at.set(number, { x: left, y: 6 + row * ROW, width }));
    rows = Math.max(rows, column.length);
    left += width + 26;
  }
  const [width, height] = [left - 20, rows * ROW + 12];
  const edges = visible.filter((number) => number > 0).map((number) => {
    const [from, to] = [at.get(nodes[number].parent), at.get(number)];
    const [x, y] = [from.x + from.width, from.y + 12];
    const path = `M${x} ${y}C${x + 13} ${y} ${to.x - 13} ${to.y + 12} ${to.x} ${to.y + 12}`;
    return draw("path", { class: chosen.has(number) ? "edge chosen" : "edge", d: path });
  });
  const entry = Math.max(...chosen); // one stop of the tabulator key; the arrow keys go on from there
  const boxes = visible.map((number) => box(nodes, number, at.get(number), chosen.has(number), force, number === entry));
  return draw("svg", { onkeydown: (event) => walk(event, nodes, columns), width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Beam tree" }, edges, boxes);
}

function walk(event, nodes, columns) {
  const from = event.target.closest("[data-node]");
  if (!from) return;
  const number = Number(from.dataset.node);
  const column = columns.get(nodes[number].step);
  const row = column.indexOf(number);
  const next = (columns.get(nodes[number].step + 1) || []).find((other) => nodes[other].parent === number);
  const before = nodes[number].parent > 0 ? nodes[number].parent : undefined;
  const to = { ArrowUp: column[row - 1], ArrowDown: column[row + 1], ArrowLeft: before, ArrowRight: next }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  from.parentNode.querySelector(`[data-node="${to}"]`).focus();
}

function box(nodes, number, place, chosen, force, isEntry) {
  const node = nodes[number];
  const title = `${shown(node.token)}: log-probability ${digits(node.log_prob)}, in all ${digits(node.total)}; ${FATES[node.fate]}`;
  const act = force && number > 0 ? () => force(pathOf(nodes, number)) : null;
  const pressed = (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      act();
    }
  };
  const reacts = act ? { role: "button", tabindex: isEntry ? 0 : -1, "aria-label": `${title}. Go on from here`, onclick: act, onkeydown: pressed } : { role: "img", "aria-label": title };
  return draw("g", { class: `node ${node.fate}${chosen ? " chosen" : ""}`, "data-node": number, ...reacts },
    draw("title", {}, title),
    draw("rect", { class: "box", x: place.x, y: place.y, width: place.width, height: ROW - 5, rx: 3 }),
    draw("text", { x: place.x + place.width / 2, y: place.y + 12, "text-anchor": "middle" }, shown(node.token)),
    draw("text", { class: "soft", x: place.x + place.width / 2, y: place.y + 22, "text-anchor": "middle", "font-size": 9 }, digits(node.total)));
}
