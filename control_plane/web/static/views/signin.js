// Sign-in: a token, once; the browser then holds a cookie that no script can read.
import { html, useState } from "../core/html.js";
import { signIn } from "../core/session.js";
import { Field } from "../parts/fields.js";
import { ProblemBox } from "../parts/problem.js";

const REFUSED = "backhaul.refused";

export default function SignIn({ query }) {
  const [token, setToken] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(refusedCode);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    const refused = await signIn(token.trim());
    setBusy(false);
    setProblem(refused);
    if (!refused) location.replace(`#${(query.back || "/").startsWith("/") ? query.back || "/" : "/"}`);
  };
  return html`<form class="signin" onSubmit=${submit}>
    <img src="/static/mark.svg" alt="" width="40" height="40" />
    <h1 tabindex="-1">Sign in to Backhaul</h1>
    <${Field} label="Token" type="password" value=${token} onInput=${setToken} required autofocus />
    <${ProblemBox} problem=${problem} />
    <button class="primary" disabled=${busy || !token.trim()}>Sign in</button>
    <p class="quiet"><code>backhaul page</code> prints a link that signs this browser in. <code>backhaul token create</code> prints a token, where the server's secret is.</p>
  </form>`;
}

// Why a link with a code did not sign this browser in; shown once.
function refusedCode() {
  const detail = sessionStorage.getItem(REFUSED);
  sessionStorage.removeItem(REFUSED);
  return detail ? { title: "The link did not sign this browser in", detail } : null;
}
