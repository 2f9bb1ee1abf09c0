// One schedule: its last ticks beside its next ones, and which client's files of which tick are there.
import { html, useState } from "../../core/html.js";
import { send } from "../../core/api.js";
import { count } from "../../core/format.js";
import { usePaged } from "../../core/paged.js";
import { useResource } from "../../core/resource.js";
import { href, Link, path, setQuery } from "../../core/router.js";
import { backhaul } from "../../parts/copy.js";
import { Json } from "../../parts/json.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { Reason, State, words } from "../../parts/state.js";
import { Age, Instant } from "../../parts/time.js";
import { toast } from "../../parts/toast.js";
import { RecordsLink } from "../audit/link.js";
import { askBackfill, askDelete, askPause } from "./acts.js";
import { Coverage } from "./coverage.js";
import { cadenceOf } from "./schedules.js";

const FEW = 8;
const NEXT = 8;

export default function ScheduleView({ params, query }) {
  const id = params.id;
  const at = path("schedules", id);
  // A job that ends changes what runs and what is covered; its change does not name the schedule.
  const match = { types: ["schedule.", "job.state_changed"] };
  const { data: schedule, problem, reload } = useResource(at, null, match);
  const ticks = useResource(`${at}/preview`, { count: NEXT }, { types: ["schedule."], schedule: id });
  const runs = usePaged(`${at}/runs`, { status: query.status }, match);
  const [refused, setRefused] = useState(null);
  if (!schedule) return html`<${Page} title=${id} request=${{ path: at }}><${ProblemBox} problem=${problem} onRetry=${reload} />${!problem && html`<div class="skeleton" role="status" aria-label="Reading"><div /><div /><div /></div>`}<//>`;
  const act = (name, note) => async () => {
    setRefused(null);
    try {
      const { body } = await send("POST", `${at}/${name}`);
      toast(note, body && body.job_id ? { to: href(path("jobs", body.job_id)), label: "Open the job" } : {});
    } catch (error) {
      setRefused(error);
    }
    reload();
    ticks.reload();
    runs.reload();
  };
  const actions = html`${schedule.paused ? html`<button type="button" class="primary" onClick=${act("resume", "The schedule is resumed")}>Resume</button>` : html`<button type="button" onClick=${() => askPause(at, reload)}>Pause…</button>`}
    <button type="button" onClick=${act("run-now", "A job was made")}>Run now</button>
    <button type="button" onClick=${act("skip-next", "The next tick is skipped")} disabled=${Boolean(schedule.skip_at)}>Skip next</button>
    <button type="button" onClick=${() => askBackfill(at, {}, () => (reload(), runs.reload()))}>Backfill…</button>
    <button type="button" class="danger" onClick=${() => askDelete(schedule)}>Delete…</button>`;
  return html`<${Page} title=${id} subtitle=${html`<span class="row"><${State} value=${schedule.paused ? "paused" : "active"} /><span>${cadenceOf(schedule)}</span></span>`} request=${{ path: at }} command=${backhaul("schedule show", {}, id)} actions=${actions}>
    <div class="stack">
      <${ProblemBox} problem=${refused || problem} />
      ${schedule.paused && html`<p class="banner">Paused since <${Instant} at=${schedule.paused_at} />${schedule.note && `: ${schedule.note}`}. Its ticks are accounted for as paused; a backfill makes up for them.</p>`}
      <div class="columns">
        <section class="card" aria-labelledby="recent"><h2 id="recent">Recent ticks</h2><${Recent} runs=${runs} query=${query} /></section>
        <section class="card" aria-labelledby="next"><h2 id="next">Next ticks</h2><${Next} ticks=${ticks} schedule=${schedule} /></section>
      </div>
      <${Coverage} scheduleId=${id} query=${query} />
      <section class="card"><h2>What each tick requests</h2>
        <div class="stack"><${Facts} schedule=${schedule} />
          <div class="row"><${Link} class="button" to="/jobs" query=${{ schedule_id: id }}>Jobs of this schedule<//><${Link} class="button" to="/new/schedule" query=${{ from: id }}>Make another schedule like this<//></div>
          <details><summary>The request as JSON</summary><${Json} value=${schedule.job} label="The job of the schedule" /></details></div>
      </section>
    </div>
  <//>`;
}

function Recent({ runs, query }) {
  const [all, setAll] = useState(false);
  const { data, problem } = runs;
  if (!data) return html`<${ProblemBox} problem=${problem} />`;
  const shown = all || query.status ? data.runs : data.runs.slice(0, FEW);
  if (!data.runs.length) return query.status ? html`<p class="quiet">No tick is ${words(query.status)}. <button type="button" class="link" onClick=${() => setQuery({ status: "" })}>Show all</button></p>` : html`<p class="quiet">It has not ticked yet. <strong>Run now</strong> makes a job at once; <strong>Backfill</strong> makes those of past ticks.</p>`;
  const hidden = data.runs.length - shown.length;
  return html`<ul class="ticks">${shown.map((run) => html`<li key=${`${run.kind} ${run.nominal_at}`}>
      <span><${Instant} at=${run.nominal_at} />${run.kind !== "tick" && html` <span class="tag">${run.kind}</span>`}</span>
      <span><${State} value=${run.status} />${run.outcome && html` <span class="quiet">${run.outcome}</span>`}</span>
      <span>${run.job_id && html`<${Link} to=${path("jobs", run.job_id)}>${run.job_id}<//> `}${run.status !== "fired" && html`<span class="quiet"><${Reason} reason=${run.reason} /></span>`}</span>
    </li>`)}</ul>
    ${(hidden > 0 || runs.cut) && html`<p class="cut" role="status">The latest ${count(shown.length)} are shown; there are more. ${hidden > 0 ? html`<button type="button" onClick=${() => setAll(true)}>Show more</button>` : runs.more && html`<button type="button" onClick=${runs.more}>Show more</button>`}</p>`}`;
}

function Next({ ticks, schedule }) {
  if (!ticks.data) return html`<${ProblemBox} problem=${ticks.problem} />`;
  if (!ticks.data.ticks.length) return html`<p class="quiet">It never ticks again.</p>`;
  return html`${schedule.paused && html`<p class="quiet">While it is paused, no job is made.</p>`}<${TickList} ticks=${ticks.data.ticks} skipAt=${schedule.skip_at} />
    ${schedule.delay > 0 && html`<p class="quiet">Each begins ${Math.round(schedule.delay)} s later: its part of the jitter.</p>`}`;
}

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

// "2026-11-28T02:30:00+01:00" as "Sat 02:30 +01:00": the local time of the schedule's zone.
const localOf = (local) => `${DAYS[new Date(`${local.slice(0, 10)}T00:00Z`).getUTCDay()]} ${local.slice(11, 16)} ${local.slice(19)}`;

// Ticks with their local time, and what a change of the clocks does to them.
export function TickList({ ticks, skipAt }) {
  return html`<ul class="ticks">${ticks.map((tick) => html`<li key=${tick.at} class=${tick.note ? "noted" : undefined}>
    <span><${Instant} at=${tick.at} /></span>
    <span class="quiet" title=${tick.local}>${localOf(tick.local)}</span>
    <span>${tick.at === skipAt ? html`<${State} value="skipped" /> ` : html`<span class="quiet"><${Age} at=${tick.at} /></span> `}${tick.note && html`<span class="note">${tick.note}</span>`}</span>
  </li>`)}</ul>`;
}

function Facts({ schedule }) {
  const { targets, files } = schedule.job;
  return html`<dl class="facts">
    <dt>Clients</dt><dd>${targets.selector && html`<code>${targets.selector}</code> `}${targets.clients.slice(0, 20).map((one) => html`<span class="tag" key=${one}>${one}</span>`)}${targets.clients.length > 20 && html`and ${count(targets.clients.length - 20)} more`}</dd>
    <dt>Files</dt><dd>${files.type && html`type ${files.type} `}${files.paths.map((one) => html`<code key=${one}>${one} </code>`)}</dd>
    <dt>Key</dt><dd><code>${schedule.job.key}</code></dd>
    <dt>While a job runs</dt><dd>${words(schedule.overlap)}</dd>
    <dt>Missed ticks</dt><dd>${schedule.catch_up.runs}, within ${schedule.catch_up.within}</dd>
    ${schedule.pause_after_failures && html`<dt>Pauses itself</dt><dd>after ${schedule.pause_after_failures} failures in a row</dd>`}
    <${RecordsLink} target=${`schedule:${schedule.schedule_id}`} />
  </dl>`;
}
