// The executions of a job: a filtered list, and acts on all that match or on those that are ticked.
// Rule: an act on a filter sends it with the count and the set that were shown; the server refuses when others match.
import { html, useEffect, useState } from "../../core/html.js";
import { send } from "../../core/api.js";
import { bytes, count, plural } from "../../core/format.js";
import { usePaged } from "../../core/paged.js";
import { href, Link, path, setQuery } from "../../core/router.js";
import { Bulk } from "../../parts/bulk.js";
import { confirm } from "../../parts/dialog.js";
import { Empty } from "../../parts/empty.js";
import { Field, Select } from "../../parts/fields.js";
import { ProblemBox } from "../../parts/problem.js";
import { Reason, State, words } from "../../parts/state.js";
import { DataTable } from "../../parts/table.js";
import { Age } from "../../parts/time.js";
import { toast } from "../../parts/toast.js";
import { EXECUTION_STATES, RETRYABLE, jobPath, listOf, tag } from "./model.js";

export function Executions({ job, query, reload }) {
  const id = job.job_id;
  const states = listOf(query.state);
  const where = { state: states, reason_code: query.reason_code, client: listOf(query.client) };
  const filtered = states.length > 0 || Boolean(query.reason_code) || where.client.length > 0;
  const list = usePaged(`${jobPath(id)}/executions`, where, { types: ["execution.state_changed", "upload.state_changed"], job: id });
  const [picked, setPicked] = useState(new Set());
  useEffect(() => setPicked(new Set()), [JSON.stringify(where)]);
  const { data } = list;
  const retryable = states.length > 0 && states.every((state) => RETRYABLE.includes(state));
  const choice = { state: states, ...(query.reason_code ? { reason_code: query.reason_code } : {}), ...(where.client.length ? { clients: where.client } : {}) };
  const late = Boolean(job.deadline) && new Date(job.deadline) <= new Date();
  const text = `Their files are listed again; what was proven is not sent again.${late ? " The deadline has passed: it becomes 24 h from now." : ""}`;
  const again = (chosen) => retryThese(job, chosen, late ? "24h" : undefined);
  const retry = { label: "Retry", text, run: async (shown) => done(await again({ ...choice, ...shown }), "queued again", () => (list.reload(), reload())) };
  const ticked = [...picked];
  return html`<div>
    <div class="filters">
      <${Select} label="State" value=${states.length === 1 ? states[0] : states.length ? "several" : ""} options=${[{ value: "", label: "Any" }, ...(states.length > 1 ? [{ value: "several", label: states.map(words).join(", ") }] : []), ...EXECUTION_STATES.map((one) => ({ value: one, label: `${words(one)} (${count(job.executions[one])})` }))]} onChange=${(state) => state !== "several" && setQuery({ state })} />
      <${Filter} label="Reason" placeholder="no_match" value=${query.reason_code} onDone=${(reason_code) => setQuery({ reason_code })} />
      <${Filter} label="Client" placeholder="its id" value=${where.client.join(" ")} onDone=${(text) => setQuery({ client: text.split(/[\s,]+/).filter(Boolean) })} />
      ${filtered && html`<button type="button" onClick=${() => setQuery({ state: "", reason_code: "", client: "" })}>Show all</button>`}
    </div>
    ${filtered && data && retryable && !ticked.length && html`<${Bulk} count=${data.count} set=${data.set} acts=${[retry]} onStale=${list.reload} />`}
    ${ticked.length > 0 && html`<div class="bulk" role="group" aria-label="Act on those that are ticked"><strong>${plural(ticked.length, "client")} ticked</strong>
      <button type="button" onClick=${() => confirm({ title: `Retry ${plural(ticked.length, "client")}`, text, act: "Retry", count: ticked.length, run: async () => done(await again({ clients: ticked }), "queued again", () => (setPicked(new Set()), list.reload(), reload())) })}>Retry…</button></div>`}
    <${ProblemBox} problem=${list.problem} onRetry=${list.reload} />
    <${DataTable} label="Executions" columns=${columnsOf(id)} rows=${data && data.executions} keyOf=${(row) => row.client_id} loading=${list.loading} cut=${list.cut ? (data.count ?? (filtered ? true : job.clients)) : false} onMore=${list.more}
      selected=${retryable ? picked : undefined} onSelect=${setPicked}
      empty=${filtered ? html`<${Empty} title="No client matches" text="The filter leaves none of this job's clients."><button type="button" onClick=${() => setQuery({ state: "", reason_code: "", client: "" })}>Show all</button><//>` : html`<${Empty} title="No client belongs to this job yet" text="Clients that match later join it." />`} />
  </div>`;
}

// A text that becomes a filter on Enter or when the field is left.
export function Filter({ label, placeholder, value, onDone }) {
  const [text, setText] = useState(value || "");
  useEffect(() => setText(value || ""), [value]);
  const done = () => text.trim() !== (value || "") && onDone(text.trim());
  return html`<${Field} label=${label} placeholder=${placeholder} value=${text} onInput=${setText} onBlur=${done} onKeyDown=${(event) => event.key === "Enter" && done()} />`;
}

// Queues executions again; the answer of REST. A job whose deadline has passed needs a new one: `deadline`.
export async function retryThese(job, where, deadline) {
  return (await send("POST", `${jobPath(job.job_id)}/retry`, { where, ...(deadline ? { deadline } : {}) }, tag(job.version))).body;
}

export function done(body, verb, after) {
  toast(`${plural(body.acted_on, "client")} ${verb}`);
  after();
}

const columnsOf = (id) => [
  { title: "Client", value: (row) => html`<${Link} to=${path("clients", row.client_id)}>${row.client_id}<//>` },
  { title: "State", value: (row) => html`<${State} value=${row.state} />` },
  { title: "Files", end: true, value: (row) => (row.files ? html`<a href=${href(jobPath(id), { tab: "files", client: row.client_id })}>${count(row.proven)} of ${count(row.files)}</a>` : html`<span class="quiet">–</span>`) },
  { title: "Bytes", end: true, value: (row) => (row.bytes ? bytes(row.bytes) : html`<span class="quiet">–</span>`) },
  { title: "Why", wide: true, value: (row) => html`<${Reason} reason=${row.reason} />${row.attempt > 1 && html` <span class="quiet">· try ${row.attempt}</span>`}` },
  { title: "Changed", value: (row) => html`<${Age} at=${row.updated_at} />` },
];
