// Tokens of the translation, and for one of them its alternatives and its attention weights.
import { digits, make, percent, readsLeftwards, shown } from "./dom.js";

export function common(one, other) {
  // which tokens of the first are in a longest common subsequence with the second
  const lengths = Array.from({ length: one.length + 1 }, () => new Int32Array(other.length + 1));
  for (let i = one.length - 1; i >= 0; i--) {
    for (let j = other.length - 1; j >= 0; j--) {
      lengths[i][j] = one[i] === other[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  const kept = one.map(() => false);
  for (let i = 0, j = 0; i < one.length && j < other.length;) {
    if (one[i] === other[j]) { kept[i++] = true; j++; }
    else if (lengths[i + 1][j] >= lengths[i][j + 1]) i++;
    else j++;
  }
  return kept;
}

export function sourceRow(tokens) {
  const direction = readsLeftwards(tokens) ? "rtl" : "ltr";
  return make("ul", { class: "tokens", "aria-label": "Source tokens", dir: direction },
    tokens.map((token, s) => make("li", { class: "token", "data-s": s }, shown(token))));
}

export function targetRow(hypothesis, { source, step, forced, other, choose }) {
  const largest = Math.max(...hypothesis.entropy, 0.1);
  const same = other ? common(hypothesis.tokens, other.tokens) : null;
  const buttons = hypothesis.tokens.map((token, t) => {
    const meter = make("span", { class: "meter", "aria-hidden": "true" });
    meter.style.transform = `scaleX(${(hypothesis.entropy[t] / largest).toFixed(3)})`;
    const classes = ["token", t < forced ? "forced" : "", same && !same[t] ? "differs" : ""].join(" ").trim();
    return make("li", {}, make("button", {
      type: "button", class: classes, "data-t": t, "aria-pressed": String(t === step),
      "aria-label": describe(hypothesis, t, source, t < forced, same && !same[t]), onclick: () => choose(t),
    }, shown(token), meter));
  });
  const direction = readsLeftwards(hypothesis.tokens) ? "rtl" : "ltr";
  return make("ul", { class: "tokens", "aria-label": "Target tokens", dir: direction }, buttons);
}

function describe(hypothesis, t, source, forced, differs) {
  const parts = [`${shown(hypothesis.tokens[t])}, probability ${percent(hypothesis.log_probs[t])}`,
    `entropy ${digits(hypothesis.entropy[t])} nats`];
  const row = hypothesis.attention[t];
  if (row) {
    const most = row.indexOf(Math.max(...row));
    parts.push(`attends most to ${shown(source[most])}, ${digits(row[most])}`);
  }
  if (forced) parts.push("forced");
  if (differs) parts.push("not in the other translation");
  return parts.join("; ");
}

export function alternatives(entries, { take, taken, before }) {
  const old = before ? Object.fromEntries(before.map((each) => [each.id, each.log_prob])) : null;
  const rows = entries.map((each) => make("tr", {},
    make("td", {}, make("button", {
      type: "button", class: "token", disabled: !take || each.id === taken, onclick: () => take(each.id),
      "aria-label": `Take ${shown(each.token)}, probability ${percent(each.log_prob)}`,
    }, shown(each.token))),
    make("td", {}, make("progress", { max: 1, value: Math.exp(each.log_prob ?? -99), "aria-hidden": "true" })),
    make("td", { class: "number" }, percent(each.log_prob)),
    make("td", { class: "number" }, digits(each.log_prob)),
    old ? make("td", { class: "number" }, each.id in old ? percent(old[each.id]) : "\u2013") : null));
  const heads = ["token", "", "probability", "log (nats)", ...(old ? ["before"] : [])];
  return make("table", { class: "alternatives" },
    make("thead", {}, make("tr", {}, heads.map((name, place) => make("th", { scope: "col", class: place > 1 ? "number" : null }, name)))),
    make("tbody", {}, rows));
}

export function weightSliders(source, weights, changed) {
  const current = [...weights];
  const inputs = source.map((token, s) => make("input", {
    type: "range", min: 0, max: 1, step: 0.01, value: weights[s], "aria-label": `Weight of ${shown(token)}, place ${s + 1}`,
    oninput: (event) => move(s, Number(event.target.value)),
  }));
  function move(s, value) {
    // the others share what is left, in their old proportions
    const rest = current.reduce((sum, weight, place) => sum + (place === s ? 0 : weight), 0);
    for (let place = 0; place < current.length; place++) {
      if (place === s) current[place] = value;
      else current[place] = rest > 0 ? (current[place] * (1 - value)) / rest : (1 - value) / (current.length - 1 || 1);
      inputs[place].value = current[place];
    }
    changed([...current]);
  }
  return make("div", { class: "weights", role: "group", "aria-label": "Attention weights of this step", dir: readsLeftwards(source) ? "rtl" : "ltr" },
    source.map((token, s) => make("label", {}, inputs[s], make("bdi", {}, shown(token)))));
}
