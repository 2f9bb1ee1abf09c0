// Uploads, newest first: what moves, what waits and why. Rule: the filters are those of REST, under the same names.
import { html } from "../../core/html.js";
import { useResource } from "../../core/resource.js";
import { Link, path, setQuery } from "../../core/router.js";
import { bytes, instant } from "../../core/format.js";
import { backhaul } from "../../parts/copy.js";
import { DataTable } from "../../parts/table.js";
import { Empty } from "../../parts/empty.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { Reason, State, words } from "../../parts/state.js";
import { Select } from "../../parts/fields.js";
import { Age } from "../../parts/time.js";
import { TypedFilter } from "../../parts/filter.js";
import { Pager } from "../../parts/pager.js";
import { Progress } from "./progress.js";

const ROWS = 50;
const STATES = ["", "queued", "dispatched", "in_progress", "completing", "completed", "failed", "rejected", "cancelled", "expired"].map((value) => ({ value, label: value ? words(value) : "any state" }));
const SINCE = [
  ["", "any time"],
  ["3600", "the last hour"],
  ["86400", "the last 24 h"],
  ["604800", "the last 7 days"],
];
const EXTRA = { status: "status", error: "error", job_id: "job", reason_code: "waits for", ended_since: "ended since" };
const OPTIONS = { "--client": "client_id", "--state": "state", "--status": "status", "--error": "error", "--job": "job_id", "--reason": "reason_code", "--since": "since", "--ended-since": "ended_since" };

export default function Uploads({ query }) {
  const where = Object.fromEntries(["client_id", "state", ...Object.keys(EXTRA), "since"].map((name) => [name, query[name]]));
  const params = { ...where, limit: ROWS, cursor: query.cursor };
  const { data, problem, loading, reload } = useResource("/uploads", params, { types: ["upload.", ...(query.reason_code ? ["client."] : [])], client: query.client_id });
  const filtered = Object.values(where).some(Boolean);
  const narrow = (patch) => setQuery({ ...patch, cursor: null });
  const command = backhaul("uploads", Object.fromEntries(Object.entries(OPTIONS).map(([option, name]) => [option, query[name]])));
  return html`<${Page} title="Uploads" subtitle="Newest first" request=${{ path: "/uploads", query: params }} command=${command}
      actions=${html`<${Link} class="button primary" to="/new/trigger" query=${{ client: query.client_id }}>New upload<//>`}>
    <search class="filters even" aria-label="Filters">
      <${TypedFilter} label="Client" value=${query.client_id} placeholder="the whole id" onChange=${(client_id) => narrow({ client_id })} path="/clients" params=${(text) => ({ id: text ? `${text.replace(/[^A-Za-z0-9._*-]/g, "")}*` : "", limit: 20 })} pick=${(body) => body.clients.map((one) => one.client_id)} />
      <${Select} label="State" value=${query.state || ""} options=${STATES} onChange=${(state) => narrow({ state })} />
      <${Select} label="Created" value=${query.since || ""} options=${sinceOptions(query.since)} onChange=${(since) => narrow({ since: /^\d+$/.test(since) ? new Date(Date.now() - since * 1000).toISOString() : since })} />
      ${Object.entries(EXTRA).map(([name, title]) => query[name] && html`<button key=${name} type="button" class="chip" aria-label=${`Remove the filter: ${title} ${query[name]}`} onClick=${() => narrow({ [name]: null })}>${title}: <strong>${name === "ended_since" ? instant(query[name]) : words(query[name])}</strong> ×</button>`)}
    </search>
    <${ProblemBox} problem=${problem} onRetry=${reload} />
    ${!(problem && !data) && html`<${DataTable} label="Uploads" rows=${data && data.uploads} keyOf=${keyOf} loading=${loading} columns=${COLUMNS} empty=${html`<${None} filtered=${filtered} more=${data && data.cursor} />`} />`}
    ${data && html`<${Pager} rows=${data.uploads.length} cursor=${data.cursor} noun="uploads" />`}
  <//>`;
}

const keyOf = (row) => `${row.client_id}/${row.upload_id}`;

// The presets; and the instant of the address, when it is one.
function sinceOptions(since) {
  const presets = SINCE.map(([value, label]) => ({ value, label }));
  return since ? [...presets, { value: since, label: `since ${instant(since)}` }] : presets;
}

export const uploadLink = (row) => ({ to: path("uploads", row.upload_id), query: { client_id: row.client_id } });
export const fileOf = (row) => row.file_path || "default file";

// The columns of a list of uploads; without the client in the view of one client.
export const columnsOf = ({ client = true } = {}) => [
  { title: "File", value: (row) => html`<${Link} ...${uploadLink(row)} class="path">${fileOf(row)}<//>` },
  ...(client ? [{ title: "Client", value: (row) => html`<${Link} to=${path("clients", row.client_id)} class="id">${row.client_id}<//>` }] : []),
  { title: "State", value: (row) => html`<${State} value=${row.state} />` },
  { title: "How it goes", wide: true, value: (row) => html`<${Going} upload=${row} />` },
  { title: "Size", end: true, value: (row) => html`<span class="nowrap">${bytes(row.file_size)}</span>` },
  { title: "Created", value: (row) => html`<span class="nowrap"><${Age} at=${row.created_at} /></span>` },
];
const COLUMNS = columnsOf();

// How far it is, why it waits, or why it failed.
function Going({ upload }) {
  return html`<span class="stacked going">
    ${upload.status === "in_progress" && html`<${Progress} upload=${upload} />`}
    ${upload.reason && upload.reason.code !== "uploading" && html`<${Reason} reason=${reasonOf(upload)} />`}
    ${upload.state === "completed" && upload.proof && html`<span class="quiet">proven by ${upload.proof}</span>`}
  </span>`;
}

// Why it waits or ended. Where nothing but the deadline is due, nothing is tried again.
export const reasonOf = ({ reason, deadline }) => (reason && reason.next_wake_at === deadline ? { ...reason, next_wake_at: null } : reason);

function None({ filtered, more }) {
  if (more) return html`<p class="quiet">None of the newest uploads matches; older ones may.</p>`;
  if (filtered) return html`<${Empty} title="No upload matches" text="Change or remove a filter."><${Link} class="button" to="/uploads">Show every upload<//><//>`;
  return html`<${Empty} title="Nothing was uploaded yet" text="Choose a client, and a file on it: the device sends it straight to the object store.">
    <${Link} class="button primary" to="/new/trigger">Request a file<//><${Link} class="button" to="/clients">Choose a client<//>
  <//>`;
}
