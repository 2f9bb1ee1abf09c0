// What a job would send, and the approval of it: of all, or of some.
// Rule: an approval names the manifest's instant, and for all also the count and the set: what others listed is not in it.
import { html, useState } from "../../core/html.js";
import { get, send } from "../../core/api.js";
import { bytes, count, duration, plural } from "../../core/format.js";
import { useResource } from "../../core/resource.js";
import { Link, path } from "../../core/router.js";
import { confirm } from "../../parts/dialog.js";
import { Check } from "../../parts/fields.js";
import { ProblemBox } from "../../parts/problem.js";
import { DataTable } from "../../parts/table.js";
import { Instant } from "../../parts/time.js";
import { done } from "./executions.js";
import { jobPath } from "./model.js";

const WAITING = { state: "awaiting_approval" };
const SHOWN = 100;

export function Manifest({ job, reload }) {
  const id = job.job_id;
  const { data, problem, reload: again } = useResource(`${jobPath(id)}/manifest`, { ...WAITING, limit: SHOWN }, { types: ["execution.state_changed", "job."], job: id });
  const [picked, setPicked] = useState(new Set());
  const [later, setLater] = useState(false);
  const [refused, setRefused] = useState(null);
  if (!data) return html`<section class="card"><h2>Waits for approval</h2><${ProblemBox} problem=${problem} onRetry=${again} /></section>`;
  const rows = data.clients;
  const ticked = rows.map((row) => row.client_id).filter((one) => picked.has(one));
  const after = () => (setPicked(new Set()), again(), reload());
  const sums = (some) => `${plural(some.reduce((sum, row) => sum + row.files, 0), "file")}, ${bytes(some.reduce((sum, row) => sum + row.bytes, 0))}`;

  // Of all: the count and the set are read now, beside the manifest that is on the screen.
  const ofAll = async ({ title, text, act, danger, verb, request }) => {
    setRefused(null);
    const shown = await get(`${jobPath(id)}/executions`, { ...WAITING, limit: 1 }).catch(setRefused);
    if (!shown) return;
    const run = async () => done((await request({ count: shown.count, set: shown.set })).body, verb, after);
    if (!(await confirm({ title: `${title} ${plural(shown.count, "client")}`, text, act, danger, count: shown.count, run }))) again();
  };
  const ofTicked = ({ title, act, danger, verb, request }) =>
    confirm({ title: `${title} ${plural(ticked.length, "client")}`, text: sums(rows.filter((row) => picked.has(row.client_id))), act, danger, count: ticked.length, run: async () => done((await request()).body, verb, after) });
  const approve = (more) => send("POST", `${jobPath(id)}/approve`, { as_of: data.as_of, later: later ? "approve" : "ask", ...more });
  const reject = (where) => send("POST", `${jobPath(id)}/reject`, { where });

  return html`<section class="card" aria-labelledby="approval">
    <h2 id="approval">${plural(data.waiting, "client")} ${data.waiting === 1 ? "waits" : "wait"} for approval</h2>
    <div class="stack">
      <p class="quiet">The files were listed up to <${Instant} at=${data.as_of} />; the job has ${plural(data.totals.files, "file")}, ${bytes(data.totals.bytes)}, in all. Nothing is sent until a person approves it.</p>
      <${ProblemBox} problem=${refused || problem} onRetry=${() => (setRefused(null), again())} />
      <div class="row">
        ${ticked.length
          ? html`<button type="button" class="primary" onClick=${() => ofTicked({ title: "Approve", act: "Approve", verb: "approved", request: () => approve({ clients: ticked }) })}>Approve ${plural(ticked.length, "client")}…</button>
            <button type="button" class="danger" onClick=${() => ofTicked({ title: "Reject", act: "Reject", danger: true, verb: "rejected", request: () => reject({ clients: ticked }) })}>Reject ${plural(ticked.length, "client")}…</button>`
          : html`<button type="button" class="primary" onClick=${() => ofAll({ title: "Approve", act: "Approve all", verb: "approved", text: later ? "What is listed later is approved too." : "What is listed later waits again.", request: approve })}>Approve all…</button>
            <button type="button" class="danger" onClick=${() => ofAll({ title: "Reject", act: "Reject all", danger: true, verb: "rejected", text: "Their executions end as rejected.", request: (shown) => reject({ state: ["awaiting_approval"], ...shown }) })}>Reject all…</button>`}
        <${Check} label="Approve what is listed later, too" checked=${later} onChange=${setLater} />
      </div>
      <${DataTable} label="Clients that wait for approval" columns=${CLIENTS} rows=${rows} keyOf=${(row) => row.client_id} selected=${picked} onSelect=${setPicked} cut=${data.cursor ? data.waiting : false} />
      ${data.largest_files.length > 0 && html`<details><summary>The largest files</summary>
        <${DataTable} label="The largest files" columns=${FILES} rows=${data.largest_files} keyOf=${(row) => `${row.client_id} ${row.number}`} /></details>`}
    </div>
  </section>`;
}

const CLIENTS = [
  { title: "Client", wide: true, value: (row) => html`<${Link} to=${path("clients", row.client_id)}>${row.client_id}<//>` },
  { title: "Files", end: true, value: (row) => count(row.files) },
  { title: "Bytes", end: true, value: (row) => bytes(row.bytes) },
  { title: "Left out", end: true, value: (row) => count(row.left_out) },
  { title: "Takes about", end: true, value: (row) => (row.minutes === null ? html`<span class="quiet">–</span>` : duration(row.minutes * 60)) },
];
const FILES = [
  { title: "Client", value: (row) => row.client_id },
  { title: "File", wide: true, value: (row) => html`<code>${row.path}</code>` },
  { title: "Size", end: true, value: (row) => bytes(row.size) },
];
