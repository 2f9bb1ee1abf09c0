// One upload: how far it is and how fast, why it waits, what happened, and the proof.
import { html, useRef, useState } from "../../core/html.js";
import { get, send } from "../../core/api.js";
import { useResource } from "../../core/resource.js";
import { Link, navigate, path } from "../../core/router.js";
import { bytes, count as shown, duration, plural, rate } from "../../core/format.js";
import { backhaul, Copyable, named, quoted } from "../../parts/copy.js";
import { confirm } from "../../parts/dialog.js";
import { Json } from "../../parts/json.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { Reason, State, words } from "../../parts/state.js";
import { Age, Instant } from "../../parts/time.js";
import { toast } from "../../parts/toast.js";
import { RecordsLink } from "../audit/link.js";
import { fileOf, reasonOf } from "./uploads.js";
import { Meter, OPEN, useProgress } from "./progress.js";
import { Receipt } from "./receipt.js";
import { Timeline } from "./timeline.js";

const PROOFS = {
  checksum: "the object's checksum is the one that follows from the digests of all parts",
  etag: "the object's ETag is the one that follows from the digests of all parts",
  accepted: "every part was stored under a signed digest, which this object store was seen to enforce",
  size: "the object has the size of the file, and the token of this attempt",
};

export default function Upload({ params, query }) {
  const place = path("uploads", params.id);
  const which = { client_id: query.client_id };
  const { data: upload, problem, reload } = useResource(place, which, { types: ["upload.", "client."], ...(query.client_id ? { client: query.client_id } : {}) });
  const [act, setAct] = useState(null);
  const meter = useRef(new Speed());
  const live = useProgress(upload, (facts, before) => {
    meter.current.note(facts);
    // The cause of a wait may change without a change of the state.
    if (before && before.reason_code !== facts.reason_code) reload();
  });
  const title = upload ? fileOf(upload).split("/").pop() : "Upload";
  const frame = { title, request: { path: place, query: which }, command: backhaul("upload show", {}, params.id) };
  if (!upload) return html`<${Page} ...${frame}><${ProblemBox} problem=${problem} onRetry=${reload} />${!problem && html`<p class="quiet" role="status">Reading…</p>`}<//>`;
  const run = async (work) => {
    setAct(null);
    try {
      await work();
    } catch (error) {
      setAct(error);
    }
  };
  const owned = { client_id: upload.client_id };
  const retry = () => run(async () => {
    const { body } = await send("POST", `${place}/retry?client_id=${encodeURIComponent(upload.client_id)}`);
    toast("Requested again as a new upload");
    navigate(path("uploads", body.upload_id), owned);
  });
  return html`<${Page} ...${frame} subtitle=${html`<${State} value=${upload.state} /> from <${Link} to=${path("clients", upload.client_id)}>${upload.client_id}<//>, requested <${Age} at=${upload.created_at} />`}
      actions=${html`
        ${upload.state === "completed" && html`<button type="button" class="primary" onClick=${() => run(() => openObject(place, owned))}>Open the object</button>`}
        ${OPEN.has(upload.state) ? html`<button type="button" class="danger" onClick=${() => cancel(place, upload, reload)}>Cancel…</button>` : html`<button type="button" onClick=${retry}>Retry</button>`}`}>
    <div class="stack">
      <${ProblemBox} problem=${act} />
      <${ProblemBox} problem=${problem} onRetry=${reload} />
      <${Now} upload=${live} speed=${meter.current} />
      <div class="columns">
        <section class="card"><h2>What happened</h2><${Timeline} upload=${upload} /></section>
        <div class="stack"><${Proof} upload=${upload} /><${Receipt} key=${upload.receipt} upload=${upload} onReload=${reload} /><${Sealed} upload=${upload} /><${Facts} upload=${upload} /></div>
      </div>
    </div>
  <//>`;
}

// Where it stands: bytes, rate and time left while it moves; the reason and the next step while it waits.
function Now({ upload, speed }) {
  const moving = upload.state === "in_progress";
  const fast = moving ? speed.rate : null;
  const left = fast && upload.file_size !== null ? (upload.file_size - upload.bytes_uploaded) / fast : null;
  const open = OPEN.has(upload.state);
  return html`<section class="card now" aria-label="Progress">
    <${Meter} value=${upload.progress} status=${upload.status} wide />
    <dl class="figures">
      <div><dt>Uploaded</dt><dd>${bytes(upload.bytes_uploaded)}${upload.file_size !== null && html` <span class="quiet">of ${bytes(upload.file_size)}</span>`}</dd></div>
      <div><dt>Parts</dt><dd>${upload.total_parts === null ? "–" : upload.completed_parts === 0 ? shown(upload.total_parts) : html`${shown(upload.completed_parts)} <span class="quiet">of ${shown(upload.total_parts)} stored</span>`}</dd></div>
      ${open && html`<div><dt>Rate</dt><dd>${rate(fast)}</dd></div>
      <div><dt>Done</dt><dd>${left === null || !Number.isFinite(left) ? "–" : html`in ${duration(left)} <span class="quiet">(<${Instant} at=${new Date(Date.now() + left * 1000).toISOString()} />)</span>`}</dd></div>`}
      <div><dt>Attempt</dt><dd>${shown(upload.attempt)}</dd></div>
    </dl>
    ${upload.reason && upload.reason.code !== "uploading" && html`<p class="cause"><${Reason} reason=${reasonOf(upload)} /></p>`}
    ${open && upload.deadline && html`<p class="quiet ends-by">It ends as expired if it is not done by <${Instant} at=${upload.deadline} /> (<${Age} at=${upload.deadline} />).</p>`}
  </section>`;
}

// Bytes a second over the last seconds, from the progress that the stream sent. Its first document is as old as it may
// be: only what lies between two changes is measured.
class Speed {
  constructor() {
    Object.assign(this, { at: 0, sent: -1, attempt: 0, rate: null });
  }

  note({ bytes_uploaded: sent, attempt }) {
    const now = performance.now() / 1000;
    const since = now - this.at;
    if (attempt !== this.attempt || sent < this.sent) this.rate = null;
    if (this.sent < 0 || attempt !== this.attempt) return Object.assign(this, { at: 0, sent, attempt });
    if (this.at && sent >= this.sent && since > 0.2) {
      const measured = (sent - this.sent) / since;
      const weight = 1 - Math.exp(-since / 5);
      this.rate = this.rate === null ? measured : this.rate + weight * (measured - this.rate);
    }
    return Object.assign(this, { at: now, sent, attempt });
  }
}

function Proof({ upload }) {
  const done = upload.state === "completed";
  return html`<section class="card"><h2>Proof</h2>
    ${done
      ? html`<p><${State} value="completed" tone="good" /> ${upload.proof ? html`By <strong>${upload.proof}</strong>: ${PROOFS[upload.proof] || "as the reference describes"}.` : "It has no proof of its content."}</p>`
      : html`<p class="quiet">${OPEN.has(upload.state) ? "An upload is completed only after the object store showed the whole object, with the strongest proof that it gives." : `It ended as ${words(upload.state)}: there is no object.`}</p>`}
    <dl class="facts">
      <dt>Object</dt><dd><code>${upload.s3_key}</code></dd>
      ${done && html`<dt>Size</dt><dd>${bytes(upload.file_size)} <span class="quiet">(${plural(upload.file_size, "byte")})</span></dd><dt>Completed</dt><dd><${Instant} at=${upload.completed_at} /></dd>`}
      ${upload.after && html`<dt>File on the device</dt><dd><strong>${upload.after.outcome}</strong> <span class="quiet">(asked: ${upload.after.asked})</span>${upload.after.text && html` ${upload.after.text}`}</dd>`}
    </dl>
  </section>`;
}

// For whom the device seals the file, and how they open the object.
function Sealed({ upload }) {
  const { encrypt_to: recipients } = upload;
  if (!recipients.length) return null;
  const object = upload.s3_key.split("/").pop();
  const done = upload.state === "completed";
  return html`<section class="card stack" aria-label="Sealed"><h2>Sealed</h2>
    <p><${State} value="sealed" tone=${done ? "good" : "idle"} /> ${done ? "Only" : "The device seals it while it sends it: only"} the ${recipients.length === 1 ? "identity of this recipient opens" : "identities of these recipients open"} the object. Its size is that of the sealed file.</p>
    <ul class="labels">${recipients.map((one) => html`<li key=${one}><code>${one}</code></li>`)}</ul>
    ${done && html`<${Copyable} label="Fetch it" text=${`curl -fsSo ${quoted(object)} "$(${backhaul("url", { "--client": upload.client_id }, upload.upload_id)})"`} />
      <${Copyable} label="Open it, where the identity is" text=${`age -d -i identity.txt -o ${quoted(object.replace(/\.age$/, ""))} ${named(object)}`} />`}
    <p><a href="/help/how-to/seal-files">How files are sealed</a></p>
  </section>`;
}

function Facts({ upload }) {
  const metadata = Object.keys(upload.metadata).length > 0;
  return html`<section class="card"><h2>Facts</h2><dl class="facts">
    <dt>File</dt><dd><code>${fileOf(upload)}</code></dd>
    <dt>Upload</dt><dd><code>${upload.upload_id}</code></dd>
    <dt>Requested by</dt><dd>${upload.job_id ? html`job <${Link} to=${path("jobs", upload.job_id)}>${upload.job_id}<//>` : upload.origin}</dd>
    <dt>Created</dt><dd><${Instant} at=${upload.created_at} /></dd>
    <dt>Last change</dt><dd><${Instant} at=${upload.updated_at} /></dd>
    <${RecordsLink} target=${`upload:${upload.upload_id}`} />
    ${metadata && html`<dt>Metadata</dt><dd><${Json} value=${upload.metadata} label="Metadata" /></dd>`}
  </dl></section>`;
}

// The URL is asked for at the click: it needs no credentials, and stays valid for an hour.
async function openObject(place, owned) {
  const { url } = await get(`${place}/url`, owned);
  const link = Object.assign(document.createElement("a"), { href: url, target: "_blank", rel: "noopener noreferrer" });
  link.click();
}

function cancel(place, upload, reload) {
  return confirm({
    title: "Cancel this upload",
    text: `${fileOf(upload)} of ${upload.client_id}. What is stored of it is removed; the file on the device stays.`,
    act: "Cancel the upload",
    danger: true,
    run: async () => {
      await send("POST", `${place}/cancel?client_id=${encodeURIComponent(upload.client_id)}`);
      toast("The upload is cancelled");
      reload();
    },
  });
}
