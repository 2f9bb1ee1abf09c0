// Who is signed in. Rule: the page holds no token: the browser keeps the cookie, which no script can read.
import { signal } from "../vendor/signals.js";

// {auth: bool, caller: string|null}, with `unreachable` where no answer has come yet; null until it was asked.
export const session = signal(null);

const SIGNIN = "#/signin";

async function call(method, body) {
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  return fetch("/session", { method, headers, body: body ? JSON.stringify(body) : undefined, credentials: "same-origin" });
}

// Asks the server who this browser is; leads to the sign-in where a token is needed and none is known.
export async function begin() {
  const code = codeInFragment();
  if (code) {
    history.replaceState(null, "", "#/");
    const answer = await call("POST", { code }).catch(() => null);
    if (answer && !answer.ok) sessionStorage.setItem("backhaul.refused", (await answer.json().catch(() => ({}))).detail || "");
  }
  await askWho();
}

// Asks who this browser is; leads to the sign-in where the server does not know it. Without an answer, nothing changes.
export async function askWho() {
  const answer = await call("GET").catch(() => null);
  const who = answer && answer.ok ? await answer.json().catch(() => null) : null;
  if (who) session.value = who;
  else session.value = session.value || { auth: false, caller: null, unreachable: true };
  if (who && who.auth && !who.caller) signedOut();
}

// Exchanges a token for the cookie; answers null, or the problem's document.
export async function signIn(token) {
  const answer = await call("POST", { token }).catch(() => null);
  if (!answer) return { title: "The server does not answer" };
  if (!answer.ok) return answer.json().catch(() => ({ title: "The sign-in failed" }));
  await askWho();
  return null;
}

// Revokes the cookie on the server and shows the sign-in.
export async function signOut() {
  await call("DELETE").catch(() => null);
  session.value = { auth: true, caller: null };
  location.hash = SIGNIN;
}

// Shows the sign-in, and remembers where one was.
export function signedOut() {
  session.value = { auth: true, caller: null };
  if (location.hash.startsWith(SIGNIN)) return;
  const back = location.hash.replace(/^#/, "") || "/";
  location.replace(`${SIGNIN}?back=${encodeURIComponent(back)}`);
}

function codeInFragment() {
  const found = /^#code=([A-Za-z0-9_-]+)$/.exec(location.hash);
  return found ? found[1] : "";
}
