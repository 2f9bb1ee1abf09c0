// The one door to REST. Rule: every answer that is no success becomes a `Problem`; 401 leads to the sign-in.
import { signedOut } from "./session.js";

const REASONS = "/help/reasons/";

// What went wrong. `reason` is the code of the reason's page, or "" where there is none.
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || "The request failed");
    this.status = status;
    this.type = String(body.type || "").split(/[/:]/).pop();
    this.title = body.title || "The request failed";
    this.detail = body.detail || "";
    this.reason = codeOf(body.reason) || body.code || this.type;
    this.body = body;
  }
}

const codeOf = (reason) => (reason && typeof reason === "object" ? reason.code : "");

const UNREACHABLE = { type: `${REASONS}unreachable`, title: "The server does not answer", detail: "Check that the control plane runs and that this machine can reach it." };

// `path?name=value&…`; an array gives its name several times; null, undefined and "" are left out.
export function pathWith(path, params) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params || {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") query.append(name, one);
    }
  }
  // These may stand in a query as they are, and are easier to read.
  const text = query.toString().replaceAll("%3A", ":").replaceAll("%2F", "/").replaceAll("%2C", ",").replaceAll("%2A", "*");
  return text ? `${path}?${text}` : path;
}

// The body of a GET. `signal` (an AbortSignal) gives it up.
export async function get(path, params, { signal } = {}) {
  return (await call("GET", pathWith(path, params), { signal })).body;
}

// The requests with an effect that have no answer yet share one reason: a click that makes many asks once.
const asked = { open: 0, why: null };

// A request with an effect: {status, body, headers}. `body` null sends none.
export async function send(method, path, body = null, headers = {}) {
  asked.open += 1;
  try {
    return await call(method, path, { body, headers });
  } catch (error) {
    if (error.type !== "reason-missing") throw error;
    // The server needs to know why: the request had no effect yet. "" is the answer of a person who gives no reason.
    asked.why ??= window.prompt("Why? The reason is kept in the audit.") || "";
    if (!asked.why) throw error;
    return await call(method, path, { body, headers: { ...headers, "Backhaul-Reason": encodeURIComponent(asked.why) } });
  } finally {
    asked.open -= 1;
    if (asked.open === 0) asked.why = null;
  }
}

async function call(method, path, { body = null, headers = {}, signal } = {}) {
  const given = { Accept: "application/json", ...headers };
  if (body !== null) given["Content-Type"] = "application/json";
  let answer;
  let text;
  try {
    answer = await fetch(path, { method, headers: given, body: body === null ? undefined : JSON.stringify(body), signal, credentials: "same-origin" });
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, UNREACHABLE);
  }
  const found = parsed(text, answer);
  if (answer.status === 401 && path !== "/session") signedOut();
  if (!answer.ok) throw new Problem(answer.status, found && typeof found === "object" ? found : { title: answer.statusText, detail: text.slice(0, 200) });
  return { status: answer.status, body: found, headers: answer.headers };
}

function parsed(text, answer) {
  if (!text) return null;
  if (!(answer.headers.get("content-type") || "").includes("json")) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
