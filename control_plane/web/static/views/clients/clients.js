// The clients of the fleet: find them by id, labels and state, see what each does, act on all that match.
// Rule: one page of rows is read, never the fleet; the filters are those of REST, under the same names.
import { html, useState } from "../../core/html.js";
import { useResource } from "../../core/resource.js";
import { Link, path, setQuery } from "../../core/router.js";
import { count as shown } from "../../core/format.js";
import { backhaul } from "../../parts/copy.js";
import { DataTable } from "../../parts/table.js";
import { Empty } from "../../parts/empty.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { Reason, State } from "../../parts/state.js";
import { Select } from "../../parts/fields.js";
import { Age, Instant } from "../../parts/time.js";
import { TypedFilter, placeOf } from "../../parts/filter.js";
import { Labels } from "./labels.js";
import { Pager } from "../../parts/pager.js";
import { Progress } from "../uploads/progress.js";
import { ActOnClients } from "./acts.js";

const ROWS = 50;
const STATES = [
  { value: "", label: "any state" },
  { value: "connected", label: "connected" },
  { value: "offline", label: "offline" },
  { value: "never_seen", label: "never seen" },
];

// A text without `*` is looked for anywhere in an id.
const patternOf = (text) => (text && !text.includes("*") ? `*${text}*` : text);

export default function Clients({ query }) {
  const where = { id: patternOf(query.id), selector: query.selector, state: query.state };
  const filtered = Object.values(where).some(Boolean);
  const params = { ...where, limit: ROWS, cursor: query.cursor };
  const { data, problem, loading, reload } = useResource("/clients", params, { types: ["client.", "upload."] });
  const [selected, setSelected] = useState(new Set());
  const place = problem && placeOf(problem);
  const wrongId = problem && problem.detail.startsWith("id:");
  const narrow = (patch) => {
    setSelected(new Set());
    setQuery({ ...patch, cursor: null });
  };
  const command = backhaul("clients", { "--id": query.id, "--selector": query.selector, "--state": query.state });
  return html`<${Page} title="Clients" subtitle="Every device that ever connected, and those that are expected"
      actions=${html`<${Link} class="button" to="/new/trigger">New upload<//>`}
      request=${{ path: "/clients", query: params }} command=${command}>
    <search class="filters even" aria-label="Filters">
      <${TypedFilter} label="Client" value=${query.id} placeholder="till-7, or berlin-*" onChange=${(id) => narrow({ id })} problem=${wrongId ? problem.detail : ""} />
      <${TypedFilter} wide label="Labels" value=${query.selector} placeholder="site=berlin,model in (pi4,pi5),!retired" onChange=${(selector) => narrow({ selector })} problem=${place} />
      <${Select} label="State" value=${query.state || ""} options=${STATES} onChange=${(state) => narrow({ state })} />
    </search>
    ${!place && !wrongId && html`<${ProblemBox} problem=${problem} onRetry=${reload} />`}
    ${data && html`<${ActOnClients} where=${where} filtered=${filtered} count=${data.count} set=${data.set} selected=${selected} onClear=${() => setSelected(new Set())} onDone=${reload} />`}
    ${(data || !problem) && html`<${DataTable} label="Clients" rows=${data && data.clients} keyOf=${(row) => row.client_id} loading=${loading} selected=${selected} onSelect=${setSelected} columns=${COLUMNS}
      empty=${filtered ? html`<${Empty} title="No client matches" text="Change or remove a filter."><button type="button" onClick=${() => narrow({ id: null, selector: null, state: null })}>Show every client</button><//>` : html`<${NoClients} />`} />`}
    ${data && html`<${Pager} rows=${data.clients.length} count=${data.count} cursor=${data.cursor} noun="clients" />`}
  <//>`;
}

const COLUMNS = [
  { title: "Client", value: (row) => html`<${Link} to=${path("clients", row.client_id)} class="id">${row.client_id}<//>` },
  { title: "State", value: (row) => html`<${ClientState} client=${row} />` },
  { title: "Labels", value: (row) => html`<${Labels} labels=${row.labels} most=${4} />` },
  { title: "Last contact", value: (row) => html`<${LastContact} client=${row} />` },
  { title: "What it does", wide: true, value: (row) => html`<${Does} client=${row} />` },
];

// The state, and the reason where the state does not name it.
export function ClientState({ client }) {
  const more = client.reason && !["client_offline", "client_never_seen"].includes(client.reason.code);
  return html`<span class="stacked"><${State} value=${client.state} />${more && html`<${Reason} reason=${client.reason} />`}</span>`;
}

// A beat is no event: of a connected client an age would grow until the list is read again, so its instant is shown.
function LastContact({ client }) {
  return html`<span class="nowrap">${client.connected ? html`<${Instant} at=${client.last_activity} />` : html`<${Age} at=${client.last_activity} />`}</span>`;
}

function Does({ client }) {
  const upload = client.current_upload;
  if (!upload) return html`<span class="quiet">–</span>`;
  const others = client.open_uploads - 1;
  return html`<span class="does">
    <${Link} to=${path("uploads", upload.upload_id)} query=${{ client_id: client.client_id }} title=${upload.file_path}>${nameOf(upload.file_path)}<//>
    ${upload.status === "queued" ? html`<${State} value="queued" />` : html`<${Progress} upload=${upload} />`}
    ${others > 0 && html`<${Link} class="quiet" to="/uploads" query=${{ client_id: client.client_id }}>and ${shown(others)} more<//>`}
  </span>`;
}

const nameOf = (file) => (file || "default file").split("/").pop();

function NoClients() {
  return html`<${Empty} title="No client has connected yet" text="Install the agent on a device and start it: it appears here by itself. To try it on this machine, run this in a shell.">
    <code>backhaul demo</code>
    <a class="button" href="/help/">How to connect a device</a>
  <//>`;
}
