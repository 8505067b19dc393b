// A given target: the loss of each token under teacher forcing, beside that under the model's own predictions.
import { digits, draw, make, percent, readsLeftwards, shown, widthOf } from "./dom.js";

const HEIGHT = 110;
const MOST = 12; // nats, at which a bar is cut off

export function forcedView(found) {
  const widths = found.tokens.map((token) => Math.max(26, widthOf(shown(token)) + 8));
  const width = widths.reduce((sum, each) => sum + each, 46);
  const nats = (value) => Math.min(value === null ? MOST : -value, MOST);
  const largest = Math.max(1, ...found.log_probs.map(nats), ...found.free.log_probs.map(nats));
  const leftwards = readsLeftwards(found.tokens);
  let passed = 40;
  const groups = found.tokens.map((token, t) => {
    const left = leftwards ? width - 6 - (passed - 40) - widths[t] : passed;
    passed += widths[t];
    const pair = [["teacher", found.log_probs[t]], ["running", found.free.log_probs[t]]];
    const bars = pair.map(([kind, value], place) => {
      const height = (nats(value) / largest) * HEIGHT;
      return draw("rect", { class: kind, x: left + widths[t] / 2 - 9 + place * 9, y: HEIGHT + 6 - height, width: 8, height });
    });
    const first = t === found.first_wrong;
    const title = `${shown(token)}: loss ${digits(-(found.log_probs[t] ?? -MOST))} nats, free running ${digits(-(found.free.log_probs[t] ?? -MOST))}`;
    return draw("g", {}, draw("title", {}, title), bars,
      draw("text", { class: first ? "first" : null, x: left + widths[t] / 2, y: HEIGHT + 22, "text-anchor": "middle" }, shown(token)));
  });
  const axis = [0, largest / 2, largest].map((value) => draw("text", {
    class: "soft", x: 32, y: HEIGHT + 9 - (value / largest) * HEIGHT, "text-anchor": "end", "font-size": 10,
  }, digits(value, 1)));
  const label = `Loss in nats of each of ${found.tokens.length} tokens, under teacher forcing and free running`;
  return draw("svg", { width, height: HEIGHT + 32, viewBox: `0 0 ${width} ${HEIGHT + 32}`, role: "img", "aria-label": label }, axis, groups);
}

export function forcedNotes(found) {
  const sum = (values) => digits(-values.reduce((total, value) => total + (value ?? -MOST), 0));
  const wrong = found.first_wrong;
  const best = wrong === null ? null : found.alternatives[wrong][0];
  return make("div", {},
    make("p", {}, make("span", { class: "key teacher" }), `teacher forcing ${sum(found.log_probs)} nats`,
      make("span", { class: "key running" }), `free running ${sum(found.free.log_probs)} nats`),
    make("p", { class: "first-wrong" }, wrong === null ? "Every token is the likeliest in its place." : [
      `First wrong at token ${wrong + 1}: `, make("bdi", { class: "token wrong" }, shown(found.tokens[wrong])),
      ` has ${percent(found.log_probs[wrong])}, `, make("bdi", { class: "token" }, shown(best.token)), ` has ${percent(best.log_prob)}.`]),
    make("p", { class: "text" }, make("span", { class: "soft" }, "free running: "), make("bdi", {}, found.free.text)));
}
