// One job: how far it is, on which clients, why it waits, what it would send, and what a person can do about it.
import { html, cls, useState } from "../../core/html.js";
import { bytes, count, plural } from "../../core/format.js";
import { useResource } from "../../core/resource.js";
import { href, Link, path } from "../../core/router.js";
import { backhaul, Copyable } from "../../parts/copy.js";
import { Json } from "../../parts/json.js";
import { curlOf, Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { Reason, State, reasonPage, words } from "../../parts/state.js";
import { Age, Instant } from "../../parts/time.js";
import { RecordsLink } from "../audit/link.js";
import { JobActs } from "./acts.js";
import { Executions } from "./executions.js";
import { JobFiles } from "./files.js";
import { ClientGrid } from "./grid.js";
import { Manifest } from "./manifest.js";
import { jobPath } from "./model.js";
import { Tune } from "./tune.js";

const TABS = [["", "Clients"], ["files", "Files"], ["results", "Results"], ["spec", "Specification"]];

export default function JobView({ params, query }) {
  const at = jobPath(params.id);
  const { data: job, problem, reload } = useResource(at, null, { types: ["job.", "execution.state_changed", "upload.state_changed"], job: params.id });
  const [refused, setRefused] = useState(null);
  const [tuning, setTuning] = useState(false);
  if (!job) return html`<${Page} title=${params.id} request=${{ path: at }}><${ProblemBox} problem=${problem} onRetry=${reload} />${!problem && html`<div class="skeleton" role="status" aria-label="Reading"><div /><div /><div /></div>`}<//>`;
  const tab = query.tab || "";
  return html`<${Page} title=${job.job_id} subtitle=${html`<span class="row"><${State} value=${job.state} />${job.outcome && html`<span>outcome: ${job.outcome}</span>`}<span>by ${job.created_by || "–"}, <${Age} at=${job.created_at} /></span></span>`}
    request=${{ path: at }} command=${backhaul("job show", {}, job.job_id)} actions=${html`<${JobActs} job=${job} reload=${reload} onTune=${() => setTuning(!tuning)} onProblem=${setRefused} />`}>
    <div class="stack">
      <${ProblemBox} problem=${refused || problem} onRetry=${problem ? reload : undefined} />
      ${tuning && html`<${Tune} job=${job} onDone=${() => (setTuning(false), reload())} />`}
      ${job.executions.awaiting_approval > 0 && ["running", "paused"].includes(job.state) && html`<${Manifest} job=${job} reload=${reload} />`}
      <div class="columns">
        <section class="card" aria-label="Clients at a glance"><h2>${count(job.clients)} ${job.clients === 1 ? "client" : "clients"}</h2><${ClientGrid} job=${job} /></section>
        <section class="card" aria-label="Facts"><h2>Facts</h2><${Facts} job=${job} /></section>
      </div>
      ${job.reasons.length > 0 && html`<section class="card flush"><h2>Why, by the number of clients</h2><${Why} job=${job} /></section>`}
      <nav class="tabs" aria-label="Parts of the job">${TABS.map(([name, title]) => html`<a key=${name} href=${href(at, name ? { tab: name } : {})} aria-current=${tab === name ? "page" : undefined} class=${cls(tab === name && "here")}>${title}</a>`)}</nav>
      ${tab === "files" ? html`<${JobFiles} job=${job} query=${query} />` : tab === "results" ? html`<${Results} job=${job} />` : tab === "spec" ? html`<${Spec} job=${job} />` : html`<${Executions} job=${job} query=${query} reload=${reload} />`}
    </div>
  <//>`;
}

function Facts({ job }) {
  const { totals, stage } = job;
  const share = totals.bytes ? (100 * totals.proven_bytes) / totals.bytes : 0;
  return html`<dl class="facts">
    ${job.reason && job.state !== "completed" && html`<dt>Why</dt><dd><${Reason} reason=${job.reason} /></dd>`}
    <dt>Files proven</dt><dd>${count(totals.proven)} of ${count(totals.files)}</dd>
    <dt>Bytes proven</dt><dd>${bytes(totals.proven_bytes)} of ${bytes(totals.bytes)}<div class="meter good" aria-hidden="true"><span style=${{ width: `${share}%` }} /></div></dd>
    ${job.approval !== "not_needed" && html`<dt>Approval</dt><dd>${words(job.approval)}</dd>`}
    ${stage && html`<dt>Stage</dt><dd>${stage.number} of ${stage.of}: ${stage.percent} % of the clients${stage.since && html`, since <${Instant} at=${stage.since} />`}</dd>`}
    ${job.run > 1 && html`<dt>Run</dt><dd>${job.run}</dd>`}
    ${job.schedule_id && html`<dt>Schedule</dt><dd><${Link} to=${path("schedules", job.schedule_id)}>${job.schedule_id}<//>${job.nominal_at && html`, tick of <${Instant} at=${job.nominal_at} />`}</dd>`}
    ${job.spec.reason && html`<dt>Requested for</dt><dd>${job.spec.reason}</dd>`}
    ${job.spec.options.encrypt_to.length > 0 && html`<dt>Sealed</dt><dd>for ${plural(job.spec.options.encrypt_to.length, "recipient")} <span class="quiet">(in the specification)</span></dd>`}
    <${RecordsLink} target=${`job:${job.job_id}`} />
    ${job.ended_at ? html`<dt>Ended</dt><dd><${Instant} at=${job.ended_at} /></dd>` : html`<dt>Deadline</dt><dd><${Instant} at=${job.deadline} /> (<${Age} at=${job.deadline} />)</dd>`}
  </dl>`;
}

// Each row opens the clients behind it.
function Why({ job }) {
  return html`<ul class="why">${job.reasons.map((one) => html`<li key=${`${one.state} ${one.reason_code}`}>
    <a href=${href(jobPath(job.job_id), { state: one.state, reason_code: one.reason_code })}><strong>${count(one.executions)}</strong> <${State} value=${one.state} /></a>
    <a class="code" href=${reasonPage(one.reason_code)} title="What this means and what to do">${one.reason_code}</a>
  </li>`)}</ul>`;
}

const FORMATS = [
  ["csv", "CSV", "a row for each file, for a spreadsheet"],
  ["jsonl", "JSON lines", "an object for each file"],
  ["curl", "curl list", "curl --parallel --fail --continue-at - --config FILE; its URLs live for an hour"],
  ["aria2", "aria2 list", "aria2c --continue=true --input-file=FILE; it checks files of one part"],
];

function Results({ job }) {
  const at = `${jobPath(job.job_id)}/results`;
  return html`<section class="card stack"><h2>What became of each file</h2>
    <ul class="downloads">${FORMATS.map(([format, title, text]) => html`<li key=${format}><a class="button" href=${`${at}?format=${format}`} download=${`${job.job_id}.${format === "curl" ? "curlrc" : format === "aria2" ? "aria2" : format}`}>${title}</a> <span class="quiet">${text}</span></li>`)}</ul>
    <${Copyable} label="Fetch every file, check each against its digest, and continue after an interruption" text=${backhaul("job pull", {}, job.job_id, `./${job.job_id}`)} />
    <${Copyable} label="The same list with curl" text=${curlOf({ path: at, query: { format: "jsonl" } })} />
  </section>`;
}

function Spec({ job }) {
  return html`<section class="card stack"><h2>The request, as REST takes it</h2>
    <div class="row"><${Link} class="button" to="/new/job" query=${{ from: job.job_id }}>Make another job like this<//></div>
    <${Json} value=${job.spec} label="The specification of the job" /></section>`;
}

