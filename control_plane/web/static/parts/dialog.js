// Questions before an act. Rule: an act on more than fifty asks a person to type the number.
import { html, signal, useEffect, useRef, useState, cls } from "../core/html.js";
import { count as shown } from "../core/format.js";
import { ProblemBox } from "./problem.js";

export const TYPED_BEYOND = 50;
const current = signal(null);

// Asks, and runs `run` (a function that may answer a promise) when a person agrees. Answers whether it was done.
// `text` is a sentence or a component's output; `act` is the word on the button; a `Problem` of `run` is shown here.
export function confirm({ title, text = "", count = 1, danger = false, act = "", run = () => {} }) {
  return new Promise((resolve) => {
    current.value = { title, text, count, danger, act: act || title, run, resolve };
  });
}

export function Dialogs() {
  const asked = current.value;
  return asked && html`<${Question} key=${asked.title} asked=${asked} />`;
}

function Question({ asked }) {
  const box = useRef(null);
  const [typed, setTyped] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(null);
  const needsNumber = asked.count > TYPED_BEYOND;
  useEffect(() => {
    box.current.showModal();
  }, []);
  const end = (done) => {
    // A dialog that is closed gives the focus back to what opened it; one that is only removed does not.
    box.current.close();
    current.value = null;
    asked.resolve(done);
  };
  const agree = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await asked.run();
      end(true);
    } catch (error) {
      setProblem(error);
      setBusy(false);
    }
  };
  const changed = problem && problem.type === "set-changed";
  return html`<dialog ref=${box} onCancel=${() => end(false)} aria-labelledby="dialog-title">
    <form method="dialog" onSubmit=${agree}>
      <h2 id="dialog-title">${asked.title}</h2>
      ${asked.text && html`<div class="text">${asked.text}</div>`}
      ${needsNumber && html`<label class="field">
        <span>Type <strong>${asked.count}</strong> to confirm</span>
        <input inputmode="numeric" autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.target.value)} />
      </label>`}
      ${changed ? html`<${Changed} body=${problem.body} />` : html`<${ProblemBox} problem=${problem} />`}
      <div class="row end">
        <button type="button" onClick=${() => end(false)}>${changed ? "Look again" : "Cancel"}</button>
        ${!changed && html`<button class=${cls("primary", asked.danger && "danger")} disabled=${busy || (needsNumber && typed.replace(/[,. ]/g, "") !== String(asked.count))}>${asked.act}</button>`}
      </div>
    </form>
  </dialog>`;
}

// The clients that were shown are no longer those that match: both counts.
function Changed({ body }) {
  const named = [["came", body.added], ["went", body.removed]].filter(([, ids]) => ids && ids.length);
  return html`<div class="problem" role="alert">
    <strong>The selection changed</strong>
    <p>You saw ${shown(body.expected)}; ${shown(body.found)} match now. Nothing was done.</p>
    ${named.map(([verb, ids]) => html`<p key=${verb}>${verb === "came" ? "New" : "No longer there"}: ${ids.join(", ")}${ids.length >= 10 ? ", …" : ""}</p>`)}
  </div>`;
}
