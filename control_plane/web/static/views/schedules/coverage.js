// Coverage: which client's files of which tick are proven, and which are missing, as a grid of client and tick.
// Rule: a cell has its state as a sign and in words, for a screen reader and in the legend; never as a colour alone.
import { html, cls, useState } from "../../core/html.js";
import { get } from "../../core/api.js";
import { count, instant, plural, utc } from "../../core/format.js";
import { useResource } from "../../core/resource.js";
import { href, Link, path, setQuery } from "../../core/router.js";
import { zone } from "../../core/zone.js";
import { moveAmongCells } from "../../parts/cells.js";
import { Empty } from "../../parts/empty.js";
import { Select } from "../../parts/fields.js";
import { ProblemBox } from "../../parts/problem.js";
import { reasonPage, State, toneOf, words } from "../../parts/state.js";
import { Instant } from "../../parts/time.js";
import { askRetry } from "../jobs/acts.js";
import { askBackfill } from "./acts.js";

const STATES = ["missing", "pending", "proven", "healed", "unchanged", "empty"];
const SIGNS = { missing: "×", pending: "…", proven: "✓", healed: "↻", unchanged: "=", empty: "–" };
const SPANS = ["12", "24", "48"];
// A page keeps below 2,000 elements, so a wide grid has fewer clients.
const MOST_CELLS = 600;
const CLIENTS = [25, 50, 100];

export function Coverage({ scheduleId, query }) {
  const at = path("schedules", scheduleId);
  const width = Number(SPANS.includes(query.ticks) ? query.ticks : "12");
  const [step, setStep] = useState(0);
  const [picked, setPicked] = useState(null);
  // The span is that of the latest ticks which have a run; a tick that was backfilled may be older than the schedule.
  const runs = useResource(`${at}/runs`, { limit: Math.min(500, width * 4), to: query.to }, { types: ["schedule."], schedule: scheduleId });
  const known = runs.data && [...new Set(runs.data.runs.filter((run) => run.kind !== "manual").map((run) => run.nominal_at))].slice(0, width);
  const span = known && known.length ? { from: known.at(-1), to: known[0] } : null;
  const limit = Math.max(5, Math.min(CLIENTS[step], Math.floor(MOST_CELLS / Math.max(1, known ? known.length : 1))));
  const state = STATES.includes(query.cells) ? query.cells : null;
  const { data, problem, reload } = useResource(span ? `${at}/coverage` : null, { ...span, state, limit }, { types: ["schedule.", "job.state_changed"] });
  const reading = !runs.data || (span && !data && !problem);
  const shown = data && data.clients.length;
  return html`<section class="card stack" aria-labelledby="coverage">
    <h2 id="coverage">Coverage</h2>
    ${span && html`<div class="filters">
      <${Select} label="Clients with a cell that is" value=${state || ""} options=${[{ value: "", label: "in any state" }, ...STATES]} onChange=${(cells) => (setPicked(null), setQuery({ cells }))} />
      <${Select} label="Ticks" value=${String(width)} options=${SPANS} onChange=${(ticks) => (setPicked(null), setQuery({ ticks }))} />
      ${runs.data.runs.length > known.length && html`<button type="button" onClick=${() => setQuery({ to: new Date(new Date(span.from) - 1).toISOString() })}>Earlier</button>`}
      ${query.to && html`<button type="button" onClick=${() => setQuery({ to: "" })}>Latest</button>`}
    </div>`}
    <${ProblemBox} problem=${problem || runs.problem} onRetry=${reload} />
    ${reading && !runs.problem && html`<div class="skeleton" role="status" aria-label="Reading"><div /><div /></div>`}
    ${runs.data && !span && html`<${Empty} title="Nothing to cover yet" text="Each tick adds a column: whose file is proven, and whose is missing."><button type="button" onClick=${() => askBackfill(at, {}, runs.reload)}>Make up for past ticks…</button><//>`}
    ${data && html`<${Sums} data=${data} />`}
    ${data && !shown && html`<p class="quiet">${state ? `No client has a cell that is ${state} in these ticks.` : "These ticks requested nothing of any client."}</p>`}
    ${data && shown > 0 && html`<${Grid} data=${data} picked=${picked} onPick=${setPicked} />`}
    ${data && data.cursor && html`<p class="cut" role="status">The first ${plural(shown, "client")} are shown; there are more. ${limit === CLIENTS[step] && step + 1 < CLIENTS.length ? html`<button type="button" onClick=${() => setStep(step + 1)}>Show more</button>` : "Choose a state or fewer ticks to see others."}</p>`}
    ${picked && data && html`<${Cell} at=${at} data=${data} picked=${picked} reload=${() => (runs.reload(), reload())} onClose=${() => setPicked(null)} />`}
    ${span && html`<ul class="legend cover">${STATES.map((one) => html`<li key=${one}><span class=${`cell ${toneOf(one)}`} aria-hidden="true">${SIGNS[one]}</span>${one}</li>`)}</ul>`}
  </section>`;
}

// All clients of the span, also those that are not on this page.
function Sums({ data }) {
  const sums = STATES.map((state) => [state, data.ticks.reduce((sum, tick) => sum + tick[state], 0)]).filter(([, number]) => number);
  return html`<p class="row" aria-live="polite">${sums.map(([state, number]) => html`<span key=${state}><strong>${count(number)}</strong> <${State} value=${state} /></span>`)}</p>`;
}

const shortly = (at) => (zone.value === "utc" ? utc(at).slice(5, 16) : instant(at).replace(/:\d\d$/, (seconds) => (instant(at).length === 8 ? "" : seconds)));

function Grid({ data, picked, onPick }) {
  return html`<div class="scroll"><table class="coverage" aria-label="Coverage by client and tick; the arrow keys move among the cells" onKeyDown=${moveAmongCells}>
    <thead><tr><th scope="col">Client</th>${data.ticks.map((tick) => html`<th key=${tick.nominal_at} scope="col" title=${tick.local}><time datetime=${tick.nominal_at}>${shortly(tick.nominal_at)}</time>${tick.missing > 0 && html`<span class="wrong">${count(tick.missing)} missing</span>`}</th>`)}</tr></thead>
    <tbody>${data.clients.map((client, row) => html`<${Row} key=${client.client_id} client=${client} ticks=${data.ticks} first=${row === 0} picked=${picked} onPick=${onPick} />`)}</tbody>
  </table></div>`;
}

function Row({ client, ticks, first, picked, onPick }) {
  const cells = new Map(client.cells.map((cell) => [cell.nominal_at, cell]));
  const start = ticks.findIndex((tick) => cells.has(tick.nominal_at));
  return html`<tr><th scope="row"><${Link} to=${path("clients", client.client_id)}>${client.client_id}<//></th>${ticks.map((tick, index) => {
    const cell = cells.get(tick.nominal_at);
    if (!cell) return html`<td key=${tick.nominal_at}><span class="quiet" aria-label="not asked" role="img">·</span></td>`;
    const name = `${client.client_id}, ${tick.local.slice(0, 16).replace("T", " ")}: ${cell.state}${cell.reason_code && cell.state === "missing" ? ` (${words(cell.reason_code)})` : ""}`;
    const here = picked && picked.client_id === client.client_id && picked.nominal_at === tick.nominal_at;
    return html`<td key=${tick.nominal_at}><button type="button" data-cell class=${cls("cell", toneOf(cell.state), here && "here")} tabindex=${first && index === start ? 0 : -1} aria-label=${name} title=${name} aria-pressed=${here ? "true" : "false"} onClick=${() => onPick(here ? null : { client_id: client.client_id, nominal_at: tick.nominal_at })}>${SIGNS[cell.state]}</button></td>`;
  })}</tr>`;
}

// What is known of one cell, and what a person can do about it.
function Cell({ at, data, picked, reload, onClose }) {
  const tick = data.ticks.find((one) => one.nominal_at === picked.nominal_at);
  const client = data.clients.find((one) => one.client_id === picked.client_id);
  const cell = client && client.cells.find((one) => one.nominal_at === picked.nominal_at);
  const [problem, setProblem] = useState(null);
  if (!tick || !cell) return null;
  const jobId = cell.healing_job_id || tick.job_id;
  const again = async () => {
    setProblem(null);
    try {
      const job = await get(path("jobs", jobId));
      await askRetry(job, { clients: [picked.client_id] }, 1, `${picked.client_id} gets another request for the tick of ${tick.local}.`, reload);
    } catch (error) {
      setProblem(error);
    }
  };
  return html`<div class="detail" role="group" aria-label="The chosen cell">
    <p class="row"><strong>${picked.client_id}</strong> <${Instant} at=${tick.nominal_at} /> <${State} value=${cell.state} /> ${cell.reason_code && html`<a class="code" href=${reasonPage(cell.reason_code)} title="What this means and what to do">${cell.reason_code}</a>`}</p>
    <p class="row">
      ${tick.job_id && html`<a class="button" href=${href(path("jobs", tick.job_id), { client: picked.client_id })}>Its execution in ${tick.job_id}</a>`}
      ${cell.healing_job_id && html`<a class="button" href=${href(path("jobs", cell.healing_job_id), { client: picked.client_id })}>Healing: ${cell.healing_job_id}</a>`}
      ${cell.state === "missing" && jobId && html`<button type="button" class="primary" onClick=${again}>Request it again…</button>`}
      <button type="button" class="plain" onClick=${onClose}>Close</button>
    </p>
    ${cell.state === "missing" && html`<p class="quiet">It heals by itself while the tick is young enough to be made up for: when the client connects, its files are requested again, those of its oldest missing tick first.</p>`}
    <${ProblemBox} problem=${problem} />
  </div>`;
}
