// Elements. Text from a model or a person enters the page as text alone, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const INVISIBLE = /[\u0000-\u001f\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
let ruler = null;

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function shown(token) {
  // what cannot be seen is written out, so that no token is blank or changes the direction of what is around it
  if (token === "") return "\u2205";
  const visible = token.replace(/^ +| +$/g, (spaces) => "\u2423".repeat(spaces.length)).replace(INVISIBLE, codePoint);
  return /^\p{M}/u.test(visible) ? "\u25cc" + visible : visible;
}

function codePoint(letter) {
  return "U+" + letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
}

export function readsLeftwards(tokens) {
  const letters = tokens.join("").match(/\p{L}/gu) || [];
  return letters.filter((letter) => RIGHT_TO_LEFT.test(letter)).length * 2 > letters.length;
}

export function widthOf(text) {
  if (!ruler) {
    ruler = document.createElement("canvas").getContext("2d");
    ruler.font = "13px system-ui, sans-serif";
  }
  return ruler.measureText(text).width;
}

export function digits(value, count = 2) {
  return value === null || value === undefined ? "\u2212\u221e" : value.toFixed(count).replace("-", "\u2212");
}

export function percent(logProb) {
  return logProb === null ? "0 %" : `${(100 * Math.exp(logProb)).toPrecision(3)} %`;
}

export function panel(title, tools, ...children) {
  return make("section", { class: "panel", "aria-label": title },
    make("div", { class: "bar" }, make("h3", {}, title), make("div", { class: "bar" }, tools)), ...children);
}

export function choice(label, options, value, change) {
  const entries = options.map(([name, text]) => make("option", { value: name, selected: String(name) === String(value) }, text));
  return make("label", {}, label, make("select", { onchange: (event) => change(event.target.value) }, entries));
}
