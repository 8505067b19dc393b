// Pictures as SVG and PNG, data as JSON, saved by the browser itself.
import { make } from "./dom.js";

const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "opacity",
  "font-size", "font-family", "font-weight", "text-anchor", "dominant-baseline", "writing-mode"];
const SCALE = 2;

function save(name, url) {
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

function dataUrl(type, text) {
  return `data:${type};charset=utf-8,${encodeURIComponent(text)}`;
}

export function standalone(picture) {
  // a copy whose colors are those of the page, and which needs no style sheet
  const copy = picture.cloneNode(true);
  const originals = [picture, ...picture.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((element, place) => {
    const style = getComputedStyle(originals[place]);
    for (const name of STYLES) element.setAttribute(name, style.getPropertyValue(name));
    for (const name of ["class", "tabindex", "role"]) element.removeAttribute(name);
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const sizes = { width: "100%", height: "100%", fill: getComputedStyle(document.body).backgroundColor };
  for (const [name, value] of Object.entries(sizes)) ground.setAttribute(name, value);
  copy.prepend(ground);
  return new XMLSerializer().serializeToString(copy);
}

async function savePng(picture, name) {
  const image = new Image();
  image.src = dataUrl("image/svg+xml", standalone(picture));
  await image.decode();
  const canvas = make("canvas", { width: picture.width.baseVal.value * SCALE, height: picture.height.baseVal.value * SCALE });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  save(name, canvas.toDataURL("image/png"));
}

export function exportButtons(name, picture, data) {
  const button = (kind, act) => make("button", { type: "button", "aria-label": `Save ${name} as ${kind}`, onclick: act }, kind);
  const pictures = picture ? [
    button("SVG", () => save(`${name}.svg`, dataUrl("image/svg+xml", standalone(picture())))),
    button("PNG", () => savePng(picture(), `${name}.png`)),
  ] : [];
  return [...pictures, button("JSON", () => save(`${name}.json`, dataUrl("application/json", JSON.stringify(data(), null, 1))))];
}
