// Every job, newest first: what state it is in, how far it is, and why it waits.
import { html } from "../../core/html.js";
import { count } from "../../core/format.js";
import { usePaged } from "../../core/paged.js";
import { Link, path, setQuery } from "../../core/router.js";
import { Bar } from "../../parts/bar.js";
import { backhaul } from "../../parts/copy.js";
import { Empty } from "../../parts/empty.js";
import { Select } from "../../parts/fields.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { Reason, State, words } from "../../parts/state.js";
import { DataTable } from "../../parts/table.js";
import { Age } from "../../parts/time.js";
import { JOB_OPEN, JOB_STATES, NOT_OVER, jobPath, segmentsOf } from "./model.js";

const MATCH = { types: ["job.", "execution.state_changed"] };

export default function Jobs({ query }) {
  const params = { state: query.state, schedule_id: query.schedule_id };
  const { data, problem, loading, cut, more, reload } = usePaged("/jobs", params, MATCH);
  const narrowed = Boolean(query.state || query.schedule_id);
  return html`<${Page} title="Jobs" subtitle="Files of many clients, requested once" request=${{ path: "/jobs", query: params }} command=${backhaul("job list", { "--state": query.state })}
    actions=${html`<${Link} class="button primary" to="/new/job">New job<//>`}>
    <div class="filters">
      <${Select} label="State" value=${query.state || ""} options=${[{ value: "", label: "Any" }, ...JOB_STATES.map((one) => ({ value: one, label: words(one) }))]} onChange=${(state) => setQuery({ state })} />
      ${query.schedule_id && html`<button type="button" onClick=${() => setQuery({ schedule_id: "" })}>Of the schedule ${query.schedule_id} ×</button>`}
    </div>
    <${ProblemBox} problem=${problem} onRetry=${reload} />
    ${!(problem && !data) && html`<${DataTable} label="Jobs" columns=${COLUMNS} rows=${data && data.jobs} keyOf=${(row) => row.job_id} loading=${loading} cut=${cut} onMore=${more}
      empty=${narrowed ? html`<${Empty} title="No job matches" text="Jobs in other states are there, or none at all."><button type="button" onClick=${() => setQuery({ state: "", schedule_id: "" })}>Show all jobs</button><//>` : html`<${Empty} title="There are no jobs yet" text="A job fetches files of many clients: choose the clients and the paths, and see what matches before anything is sent."><${Link} class="button primary" to="/new/job">Make the first job<//><//>`} />`}
  <//>`;
}

// A job that waits for nothing itself shows what its clients do.
const openOf = (job) => (JOB_OPEN.includes(job.state) ? NOT_OVER.filter((state) => job.executions[state]).map((state) => `${count(job.executions[state])} ${words(state)}`).join(", ") : "");

const COLUMNS = [
  { title: "Job", wide: true, value: (job) => html`<${Link} to=${jobPath(job.job_id)}>${job.job_id}<//>${job.schedule_id && html` <${Link} class="tag" to=${path("schedules", job.schedule_id)}>${job.schedule_id}<//>`}` },
  { title: "State", value: (job) => html`<${State} value=${job.state} />${job.outcome && html` <span class="quiet">${job.outcome}</span>`}` },
  { title: "Clients", value: (job) => html`<div class="progress"><${Bar} thin label="Clients" segments=${segmentsOf(job)} /><span class="quiet">${count(job.clients)}</span></div>` },
  { title: "Files proven", end: true, value: (job) => html`${count(job.totals.proven)} of ${count(job.totals.files)}` },
  { title: "Why", value: (job) => (job.reason ? html`<${Reason} reason=${job.reason} />` : html`<span class="quiet">${openOf(job)}</span>`) },
  { title: "Created", value: (job) => html`<${Age} at=${job.created_at} />` },
];
