// The permanent link: what is looked at, in the fragment of the address.

const DEFAULTS = {
  line: "", model: "", beside: "", beam: "", prefix: "", hypothesis: "0", step: "", weights: "attention", head: "mean",
  form: "ribbons", rejected: "", target: "",
};

const NUMBERS = ["beam", "hypothesis", "step"];

export function readLink() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const known = Object.entries(given).filter(([name, value]) => name in DEFAULTS && !(NUMBERS.includes(name) && /\D/.test(value)));
  return { ...DEFAULTS, ...Object.fromEntries(known) };
}

export function writeLink(view) {
  const changed = Object.entries(view).filter(([name, value]) => name in DEFAULTS && value !== DEFAULTS[name]);
  const link = "#" + new URLSearchParams(changed).toString();
  if (link !== location.hash && !(link === "#" && location.hash === "")) history.replaceState(null, "", link);
}
