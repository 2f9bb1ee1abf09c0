// The receipt of a completed upload: who signed what about the object, and a comparison with what lies there now.
// Rule: the page shows what the server says. Who trusts the server less runs the command, or reads the signatures.
import { html, useState } from "../../core/html.js";
import { pathWith, send } from "../../core/api.js";
import { plural } from "../../core/format.js";
import { useResource } from "../../core/resource.js";
import { path } from "../../core/router.js";
import { backhaul, Copyable } from "../../parts/copy.js";
import { ProblemBox } from "../../parts/problem.js";
import { lacksScope } from "../../parts/rights.js";
import { State } from "../../parts/state.js";
import { Instant } from "../../parts/time.js";

const READS = "objects:read";
const HOLDERS = { device: "the device", "control-plane": "this control plane" };
const VERDICTS = {
  verified: "The object is what the receipt says.",
  mismatch: "The object is not what was proven.",
  unsigned: "The object is what the database says; there is no receipt of it.",
};
const CONTENTS = {
  store: "Its content was compared by the digest that the object store shows.",
  size: "Only its size was compared: the object store shows no digest. The command with --bytes reads it.",
  bytes: "Its bytes were read.",
};

export function Receipt({ upload, onReload }) {
  if (upload.state !== "completed") return null;
  const made = upload.receipt === "device" || upload.receipt === "control-plane";
  return html`<section class="card stack" aria-label="Receipt"><h2>Receipt</h2>
    ${made && html`<${Signed} upload=${upload} />`}
    ${upload.receipt === "awaited" && html`<p class="row"><span class="quiet">It is not made yet: the device is asked for its signature.</span> <button type="button" onClick=${onReload}>Look again</button></p>`}
    ${!upload.receipt && html`<p class="quiet">None was made when the upload was completed.</p>`}
    <${Verify} upload=${upload} />
    <${Copyable} label="Verify it yourself; --bytes reads the object" text=${backhaul("verify", { "--client": upload.client_id }, upload.upload_id)} />
    <p><a href="/help/how-to/prove-an-upload">What a receipt proves, and a check without this program</a></p>
  </section>`;
}

// The document is read again when another party has signed: then `receipt` of the upload is another one.
function Signed({ upload }) {
  const place = `${path("uploads", upload.upload_id)}/receipt`;
  const which = { client_id: upload.client_id };
  const { data, problem, reload } = useResource(place, which);
  if (!data) return problem ? html`<${ProblemBox} problem=${problem} onRetry=${reload} />` : html`<p class="quiet" role="status">Reading…</p>`;
  const { subject: [subject], predicate } = statementOf(data.envelope);
  const file = `${upload.s3_key.split("/").pop()}.receipt.json`;
  return html`<dl class="facts">
      <dt>Signed by</dt><dd><ul class="labels">${data.keys.map((key) => html`<li key=${key.keyid}><strong>${HOLDERS[key.of] || key.of}</strong> <code>${key.keyid}</code></li>`)}</ul>
        ${!data.signed_by_device && html`<p>Not by the device${data.refused ? html`: ${data.refused}` : ""}. The control plane alone vouches for it.</p>`}</dd>
      <dt>Proven</dt><dd><${Instant} at=${predicate.completed_at} /> by <strong>${predicate.proof}</strong></dd>
      ${predicate.closed_at && html`<dt>Known to the device</dt><dd><${Instant} at=${predicate.closed_at} /> <span class="quiet">by its clock</span></dd>`}
      ${Object.entries(subject.digest).map(([name, digest]) => html`<dt key=${name}>${name === "sha256" ? "SHA-256 of the object" : "Digest over its parts"}</dt><dd><code>${digest}</code></dd>`)}
      <dt>Parts</dt><dd>${plural(predicate.parts.count, "part")} <span class="quiet">each with ${predicate.parts.digest === "none" ? "no digest" : html`a digest by <code>${predicate.parts.digest}</code>`}</span></dd>
      ${predicate.command && html`<dt>Command obeyed</dt><dd><code>${predicate.command}</code> <span class="quiet">SHA-256</span></dd>`}
    </dl>
    <p><a class="button" href=${pathWith(place, which)} download=${file}>Download the receipt</a></p>`;
}

// What was signed: the bytes of the payload are UTF-8.
function statementOf(envelope) {
  const bytes = Uint8Array.from(atob(envelope.payload), (letter) => letter.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

function Verify({ upload }) {
  const why = lacksScope(READS);
  const [state, setState] = useState({ busy: false, found: null, problem: null });
  const run = async () => {
    setState({ ...state, busy: true });
    try {
      const { body } = await send("POST", pathWith(`${path("uploads", upload.upload_id)}/verify`, { client_id: upload.client_id }));
      setState({ busy: false, found: body, problem: null });
    } catch (problem) {
      setState({ busy: false, found: null, problem });
    }
  };
  return html`<p class="row"><button type="button" disabled=${Boolean(why) || state.busy} onClick=${run}>${state.busy ? "Comparing…" : "Verify the object"}</button>${why && html` <span class="quiet">${why}</span>`}</p>
    <${ProblemBox} problem=${state.problem} />
    <div role="status">${state.found && html`<${Verdict} found=${state.found} />`}</div>`;
}

function Verdict({ found }) {
  const tone = found.verdict === "unsigned" ? "wait" : undefined;
  return html`<p><${State} value=${found.verdict} tone=${tone} /> ${VERDICTS[found.verdict]} ${found.verdict !== "mismatch" && html`<span class="quiet">${CONTENTS[found.content]}</span>`}</p>
    ${found.differs.length > 0 && html`<ul class="notes" aria-label="What differs">${found.differs.map((one) => html`<li key=${one}>${one}</li>`)}</ul>`}
    ${found.notes.length > 0 && html`<ul class="notes quiet" aria-label="What this does not show">${found.notes.map((one) => html`<li key=${one}>${one}</li>`)}</ul>`}`;
}
