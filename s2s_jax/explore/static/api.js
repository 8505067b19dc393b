// The server's answers, or those that are recorded in this file.

const store = document.getElementById("recorded");
const recorded = store ? JSON.parse(store.textContent) : null;
let secret = "";

export const offline = recorded !== null;

export function setToken(token) {
  secret = token;
}

function sameBody(one, other) {
  const names = new Set([...Object.keys(one), ...Object.keys(other)]);
  return [...names].every((name) => JSON.stringify(one[name] ?? null) === JSON.stringify(other[name] ?? null));
}

function played(path, body) {
  const found = recorded.answers.find((entry) => entry.path === path && sameBody(entry.body, body));
  if (!found) throw new Error("this file does not hold that; start s2s serve with the run to see it");
  return found.answer;
}

export function holds(path, body) {
  return !recorded || recorded.answers.some((entry) => entry.path === path && sameBody(entry.body, body));
}

export function recordedLines() {
  return recorded.answers.filter((entry) => entry.path === "trace").map((entry) => entry.body.line);
}

export function recordedTarget(line) {
  const found = recorded.answers.find((entry) => entry.path === "forced" && entry.body.line === line);
  return found ? found.body.target : "";
}

async function fetched(path, options) {
  const headers = { ...(options.headers || {}), ...(secret ? { Authorization: `Bearer ${secret}` } : {}) };
  const response = await fetch(path, { ...options, headers });
  const answer = await response.json();
  if (response.ok) return answer;
  const error = new Error(answer.error ? answer.error.message : response.statusText);
  error.code = answer.error ? answer.error.code : "";
  throw error;
}

export async function models() {
  return recorded ? recorded.models : (await fetched("v1/models", {})).models;
}

export async function explore(path, body, signal) {
  if (recorded) return played(path, body);
  const headers = { "Content-Type": "application/json" };
  return fetched(`v1/explore/${path}`, { method: "POST", headers, body: JSON.stringify(body), signal });
}
