// The files that a job selected, and what became of each.
import { html } from "../../core/html.js";
import { bytes } from "../../core/format.js";
import { usePaged } from "../../core/paged.js";
import { Link, path, setQuery } from "../../core/router.js";
import { Empty } from "../../parts/empty.js";
import { Select } from "../../parts/fields.js";
import { ProblemBox } from "../../parts/problem.js";
import { Reason, State, words } from "../../parts/state.js";
import { DataTable } from "../../parts/table.js";
import { Filter } from "./executions.js";
import { OUTCOMES, jobPath, listOf } from "./model.js";

export function JobFiles({ job, query }) {
  const id = job.job_id;
  const [client] = listOf(query.client);
  const undecided = query.outcome === "undecided";
  const where = { client, outcome: undecided ? null : query.outcome, undecided: undecided ? "true" : null };
  const list = usePaged(`${jobPath(id)}/files`, where, { types: ["execution.state_changed", "upload."], job: id });
  const narrowed = Boolean(client || query.outcome);
  return html`<div>
    <div class="filters">
      <${Select} label="Outcome" value=${query.outcome || ""} options=${[{ value: "", label: "Any" }, { value: "undecided", label: "not decided yet" }, ...OUTCOMES.map((one) => ({ value: one, label: words(one) }))]} onChange=${(outcome) => setQuery({ outcome })} />
      <${Filter} label="Client" placeholder="its id" value=${client} onDone=${(text) => setQuery({ client: text })} />
    </div>
    <${ProblemBox} problem=${list.problem} onRetry=${list.reload} />
    <${DataTable} label="Files" columns=${COLUMNS} rows=${list.data && list.data.files} keyOf=${(row) => `${row.client_id} ${row.number}`} loading=${list.loading} cut=${list.cut} onMore=${list.more}
      empty=${narrowed ? html`<${Empty} title="No file matches"><button type="button" onClick=${() => setQuery({ outcome: "", client: "" })}>Show all files</button><//>` : html`<${Empty} title="No file is selected yet" text="Each client lists its own files once its execution begins." />`} />
  </div>`;
}

const COLUMNS = [
  { title: "Client", value: (row) => html`<${Link} to=${path("clients", row.client_id)}>${row.client_id}<//>` },
  { title: "File", wide: true, value: (row) => html`<code>${row.path}</code>` },
  { title: "Size", end: true, value: (row) => bytes(row.size) },
  { title: "Outcome", value: (row) => (row.outcome ? html`<${State} value=${row.outcome} />` : html`<span class="quiet">not decided yet</span>`) },
  { title: "Why", value: (row) => html`<${Reason} reason=${row.reason} />` },
  { title: "Upload", value: (row) => (row.upload_id ? html`<${Link} to=${path("uploads", row.upload_id)} query=${{ client_id: row.client_id }}>${row.upload_id}<//>` : html`<span class="quiet">–</span>`) },
];
