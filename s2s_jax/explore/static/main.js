// The page: what is looked at (the view, which the link holds), and a side for each of up to two runs.
import { explore, holds, models, offline, recordedLines, recordedTarget, setToken } from "./api.js";
import { heatMap, linkHover, ribbons } from "./alignment.js";
import { choice, digits, make, panel, shown } from "./dom.js";
import { exportButtons } from "./export.js";
import { forcedNotes, forcedView } from "./forced.js";
import { readLink, writeLink } from "./link.js";
import { alternatives, sourceRow, targetRow, weightSliders } from "./steps.js";
import { beamTree } from "./tree.js";

const LATER = 150; // milliseconds after the last move of a slider
const INFLUENCES = [["saliency", "saliency"], ["gradient", "gradient"], ["occlusion", "occlusion"]];
const byId = (name) => document.getElementById(name);
let view = readLink();
let sides = []; // of each run: what was found
let running = null; // what stops the requests of an older sentence

function report(message, isError = false) {
  byId("status").textContent = message;
  byId("status").classList.toggle("error", isError);
}

function explain(error) {
  if (error.name === "AbortError") return;
  if (error.code === "unauthorized") {
    byId("secret").hidden = false;
    report("This server wants its token (s2s serve --token).", true);
    return;
  }
  if (error.code === "not_ready") {
    report("The server is starting: its programs are being compiled.");
    setTimeout(translate, 2000);
    return;
  }
  report(error.message, true);
}

function change(changes) {
  view = { ...view, ...changes };
  writeLink(view);
}

const forcedIds = () => view.prefix.split(",").filter(Boolean).map(Number);

async function translate(changes = {}) {
  change(changes);
  fillForm();
  if (running) running.abort();
  running = new AbortController();
  const { signal } = running;
  if (!view.line.trim()) {
    sides = [];
    render();
    report(offline ? "" : "Type a sentence.");
    return;
  }
  report("Computing; the first sentence of a length takes longer, since its program is compiled.");
  try {
    const names = [view.model, view.beside].filter((name, place) => place === 0 || (name && name !== "-"));
    const body = { line: view.line, ...(view.beam ? { beam: Number(view.beam) } : {}) };
    const found = await Promise.all(names.map((model, place) => {
      // ids are those of the first run's tokenizer, so the other one is not forced
      const prefix = place === 0 && forcedIds().length ? { prefix: forcedIds() } : {};
      return explore("trace", { ...body, ...prefix, ...(model ? { model } : {}) }, signal);
    }));
    const before = names.map((_, place) => (sides[place] && sides.length === names.length ? hypothesisOf(sides[place]) : null));
    sides = found.map((trace, place) => ({ trace, model: names[place] || trace.model, before: before[place], influence: {}, forced: null }));
    render();
    report(found.map((trace) => trace.unread ? `${trace.unread} source tokens were not read (search.max_source).` : "").join(" ").trim());
    const target = offline ? recordedTarget(view.line) : view.target;
    await Promise.all(sides.map(async (side) => {
      if (target) await force(side, target);
      if (view.weights !== "attention") await influence(side);
    }));
  } catch (error) {
    explain(error);
  }
}

const named = (side) => (view.model || view.beside ? { model: side.model } : {});
const hypothesisOf = (side) => side.trace.hypotheses[Math.min(Number(view.hypothesis), side.trace.hypotheses.length - 1)];

async function influence(side) {
  const [method, hypothesis] = [view.weights, hypothesisOf(side)];
  if (method === "attention" || method === "coverage" || !hypothesis) return;
  const body = { line: view.line, ids: hypothesis.ids, method, ...named(side) };
  const key = `${method} ${hypothesis.ids}`;
  try {
    side.influence[key] ??= (await explore("influence", body)).influence;
    renderSide(side);
  } catch (error) {
    explain(error);
  }
}

async function force(side, target) {
  try {
    side.forced = await explore("forced", { line: view.line, target, ...named(side) });
    renderSide(side);
  } catch (error) {
    explain(error);
  }
}

function weightsOf(side, hypothesis) {
  if (view.weights !== "attention" && view.weights !== "coverage") return side.influence[`${view.weights} ${hypothesis.ids}`] || [];
  const rows = view.head === "mean" || !hypothesis.heads[view.head] ? hypothesis.attention : hypothesis.heads[view.head];
  const sums = rows.length ? rows[0].map(() => 0) : [];
  // coverage: what each source token was given up to and including each step
  const shownRows = view.weights === "attention" ? rows.map((row) => [...row]) : rows.map((row) => row.map((weight, s) => (sums[s] += weight)));
  shownRows.isDistribution = view.weights === "attention";
  return shownRows;
}

function translationPanel(side) {
  const { trace } = side;
  const hypothesis = hypothesisOf(side);
  const list = trace.hypotheses.map((each, place) => make("li", {}, make("button", {
    type: "button", "aria-pressed": String(each === hypothesis), onclick: () => select({ hypothesis: String(place), step: "" }),
  }, make("bdi", {}, each.text || "\u2205"), make("span", { class: "soft" }, ` ${digits(each.score, 3)}${each.truncated ? ", cut off" : ""}`))));
  const other = sides.length === 2 ? hypothesisOf(sides[side === sides[0] ? 1 : 0]) : side.before;
  const isFirst = side === sides[0];
  const forced = isFirst ? forcedIds().length : 0;
  const free = forced && !offline ? make("button", { type: "button", onclick: () => translate({ prefix: "", step: "" }) }, `Drop the ${forced} forced`) : null;
  return panel("Translation", [free, exportButtons("translation", null, () => trace)],
    sourceRow(trace.source_tokens),
    hypothesis ? make("p", { class: "text translation", dir: "auto" }, hypothesis.text || "\u2205") : make("p", {}, "Nothing was found."),
    hypothesis ? targetRow(hypothesis, { source: trace.source_tokens, step: view.step === "" ? -1 : Number(view.step), forced, other, choose: (t) => select({ step: String(t) === view.step ? "" : String(t) }) }) : null,
    make("p", { class: "soft" }, `Bars: entropy. ${other ? `Marked: not in the translation ${sides.length === 2 ? "of the other run" : "before this one"}. ` : ""}A token opens its alternatives.`),
    make("ul", { class: "hypotheses", "aria-label": "Hypotheses" }, list));
}

function alignmentPanel(side, hypothesis) {
  const { trace } = side;
  const weights = weightsOf(side, hypothesis);
  const attends = hypothesis.attention.length > 0;
  const kinds = [...(attends ? [["attention", "attention"], ["coverage", "coverage"]] : []),
    ...INFLUENCES.filter(([method]) => holds("influence", { line: view.line, ids: hypothesis.ids, method, ...named(side) }))];
  if (!kinds.length) return null;
  if (!attends && !kinds.some(([name]) => name === view.weights)) kinds.unshift(["attention", "choose"]);
  const heads = hypothesis.heads.length ? choice("Head", [["mean", "mean"], ...hypothesis.heads.map((_, n) => [n, n + 1])], view.head, (head) => select({ head })) : null;
  const make_picture = view.form === "heat" ? heatMap : ribbons;
  const picture = weights.length ? make_picture(trace.source_tokens, hypothesis.tokens, weights, `${view.weights} of ${hypothesis.text}`) : null;
  const tools = [choice("Of", kinds, view.weights, (name) => select({ weights: name })), heads,
    choice("As", [["ribbons", "ribbons"], ["heat", "heat map"]], view.form, (form) => select({ form })),
    picture ? exportButtons("alignment", () => picture, () => ({ source: trace.source_tokens, target: hypothesis.tokens, of: view.weights, weights })) : null];
  const nothing = attends ? "Computing." : "This model has no attention; choose saliency, gradient or occlusion.";
  return panel("Alignment", tools.flat(), make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Alignment picture" }, picture || make("p", { class: "soft" }, nothing)));
}

function stepPanel(side, hypothesis) {
  const step = Number(view.step);
  if (view.step === "" || step >= hypothesis.ids.length) return null;
  const entries = hypothesis.alternatives[step];
  const take = offline || side !== sides[0] ? null : (id) => translate({ prefix: [...hypothesis.ids.slice(0, step), id].join(","), hypothesis: "0", step: String(step) });
  const drag = draggedAt(side, hypothesis, step);
  const table = () => alternatives(drag.found || entries, { take, taken: hypothesis.ids[step], before: drag.found ? entries : null });
  const place = make("div", { class: "distribution" }, table());
  const parts = [place];
  if (hypothesis.attention.length && !offline) {
    const reset = () => { side.dragged = null; renderSide(side); };
    parts.push(make("div", { class: "bar" }, make("h3", {}, "Attention of this step"), make("button", { type: "button", onclick: reset }, "The model's own")),
      weightSliders(side.trace.source_tokens, drag.weights || hypothesis.attention[step], dragger(side, hypothesis, step, drag, table)));
  }
  if (!offline) parts.push(neighborsPart(side, hypothesis, step));
  return panel(`Token ${step + 1}: ${shown(hypothesis.tokens[step])}`, exportButtons("step", null, () => ({ token: hypothesis.tokens[step], alternatives: drag.found || entries, weights: drag.weights || hypothesis.attention[step] })), ...parts);
}

function draggedAt(side, hypothesis, step) {
  // the weights that were given to a step, which outlive a redrawing of the side
  const key = `${step} ${hypothesis.ids}`;
  if (side.dragged?.key !== key) side.dragged = { key, weights: null, found: null, last: 0 };
  return side.dragged;
}

function dragger(side, hypothesis, step, drag, table) {
  let timer = 0;
  return (weights) => {
    clearTimeout(timer);
    const number = ++drag.last;
    drag.weights = weights;
    timer = setTimeout(async () => {
      try {
        const found = await explore("attend", { line: view.line, ids: hypothesis.ids, step, weights, ...named(side) });
        if (number !== drag.last) return;
        drag.found = found.alternatives[step];
        if (side.dragged === drag) side.element.querySelector(".distribution")?.replaceChildren(table());
      } catch (error) {
        explain(error);
      }
    }, LATER);
  };
}

function neighborsPart(side, hypothesis, step) {
  const key = `${step} ${hypothesis.ids}`;
  if (side.near?.key !== key) side.near = { key, place: make("div", { class: "neighbors" }) }; // outlives a redrawing
  const { place } = side.near;
  const find = async () => {
    place.replaceChildren(make("p", { class: "soft" }, "Computing; the first time, the training states are read."));
    try {
      const found = await explore("neighbors", { line: view.line, ids: hypothesis.ids, step, ...named(side) });
      const rows = found.neighbors.map((each) => make("tr", {},
        make("td", { class: "text" }, make("bdi", {}, each.source)),
        make("td", { class: "text" }, make("bdi", {}, each.target)),
        make("td", {}, make("bdi", { class: "token" }, shown(each.tokens[each.step])), ` (${each.step + 1})`),
        make("td", { class: "number" }, digits(each.distance))));
      const heads = ["source", "target", "token", "distance"].map((name) => make("th", { scope: "col" }, name));
      place.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, heads)), make("tbody", {}, rows)));
    } catch (error) {
      place.replaceChildren(make("p", { class: "error" }, error.message));
    }
  };
  return make("div", {}, make("button", { type: "button", onclick: find }, "Find training sentences with the nearest states"), place);
}

function treePanel(side, hypothesis) {
  const go = offline || side !== sides[0] ? null : (ids) => translate({ prefix: ids.join(","), hypothesis: "0", step: "" });
  const picture = beamTree(side.trace.tree, { ids: hypothesis ? hypothesis.ids : [], rejected: Boolean(view.rejected), force: go });
  const all = make("label", {}, make("input", { type: "checkbox", checked: Boolean(view.rejected), onchange: (event) => select({ rejected: event.target.checked ? "1" : "" }) }), "what was not kept");
  const built = panel(`Beam of ${side.trace.beam}`, [all, exportButtons("beam", () => picture, () => side.trace.tree)].flat(),
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Beam tree picture" }, picture),
    make("p", { class: "soft" }, `Green: complete. Dashed: ${view.rejected ? "lost or not kept" : "lost"}.${go ? " A node goes on from there." : ""}`));
  built.classList.add("whole");
  return built;
}

function forcedPanel(side) {
  const typed = (event) => { side.typed = event.target.value; };
  const input = make("input", { dir: "auto", value: side.typed ?? view.target, "aria-label": "Given target", spellcheck: "false", oninput: typed });
  const submit = (event) => {
    event.preventDefault();
    change({ target: input.value });
    sides.forEach((each) => force(each, input.value));
  };
  if (offline && !side.forced) return null;
  const form = offline ? make("p", { class: "text", dir: "auto" }, side.forced.target)
    : make("form", { onsubmit: submit }, make("label", { class: "wide" }, "Target", input), make("button", { type: "submit" }, "Force"));
  const picture = side.forced ? forcedView(side.forced) : null;
  return panel("Given target", picture ? exportButtons("forced", () => picture, () => side.forced) : [], form,
    picture ? make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Losses" }, picture) : null,
    side.forced ? forcedNotes(side.forced) : null);
}

function refocus(fresh, old) {
  // what stands in the place of the element that had the focus
  const [t, label] = [old.dataset.t, old.getAttribute("aria-label")];
  const same = t !== undefined ? `button[data-t="${t}"]` : label ? `[aria-label="${CSS.escape(label)}"]:not(section)` : null;
  const found = same ? fresh.querySelector(same) : null;
  if (!found) return;
  found.focus();
  if (found.tagName === "INPUT" && found.type === "text") found.setSelectionRange(old.selectionStart, old.selectionEnd);
}

function renderSide(side) {
  const hypothesis = hypothesisOf(side);
  const alignment = hypothesis ? alignmentPanel(side, hypothesis) : null;
  const parts = [translationPanel(side), alignment, hypothesis ? stepPanel(side, hypothesis) : null, treePanel(side, hypothesis), forcedPanel(side)];
  const fresh = make("article", { class: sides.length === 1 ? "side alone" : "side", "aria-label": side.model || "run" },
    sides.length === 2 ? make("h2", { class: "whole" }, side.model || side.trace.model || "") : null, parts);
  linkHover(fresh, hypothesis ? weightsOf(side, hypothesis) : []);
  const active = side.element?.contains(document.activeElement) ? document.activeElement : null;
  if (side.element) side.element.replaceWith(fresh);
  side.element = fresh;
  if (active) refocus(fresh, active);
  return fresh;
}

function render() {
  byId("sides").replaceChildren(...sides.map(renderSide));
}

function select(changes) {
  change(changes);
  sides.forEach(renderSide);
  if ("weights" in changes || "hypothesis" in changes) sides.forEach(influence);
}

function fillForm() {
  for (const name of ["line", "beam"]) if (byId(name).value !== view[name]) byId(name).value = view[name];
  for (const name of ["model", "beside"]) byId(name).value = view[name] || byId(name).options[0]?.value || "";
}

function setUpOffline() {
  const lines = recordedLines();
  const line = byId("line");
  line.parentNode.replaceChildren("Sentence", make("select", { id: "line", onchange: (event) => translate({ line: event.target.value, hypothesis: "0", step: "" }) },
    lines.map((text) => make("option", { value: text }, text))));
  for (const name of ["model", "beside", "beam"]) byId(name).closest("label").hidden = true;
  byId("form").querySelector("button").hidden = true;
  if (!lines.includes(view.line)) view.line = lines[0] || "";
}

async function start() {
  try {
    const known = (await models()).filter((model) => model.explores && !model.features); // there is one box to type in
    byId("model").replaceChildren(...known.map(({ name }) => make("option", { value: name }, name)));
    byId("beside").replaceChildren(make("option", { value: "-" }, "\u2013"), ...known.map(({ name }) => make("option", { value: name }, name)));
    if (!known.length) throw new Error("no run that can be explored is served");
    if (offline) setUpOffline();
    await translate();
  } catch (error) {
    explain(error);
  }
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (offline) return;
  setToken(byId("token").value);
  if (!byId("model").options.length) { start(); return; }
  const [model, beside] = [byId("model"), byId("beside")];
  const same = byId("line").value === view.line && model.value === (view.model || model.options[0].value);
  translate({
    line: byId("line").value, beam: byId("beam").value, hypothesis: "0", step: "", prefix: same ? view.prefix : "",
    model: model.selectedIndex > 0 || beside.value !== "-" ? model.value : "", beside: beside.value === "-" ? "" : beside.value,
  });
});
addEventListener("hashchange", () => { view = readLink(); translate(); });
start();
