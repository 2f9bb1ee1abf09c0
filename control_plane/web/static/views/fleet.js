// The fleet in a minute: who is there, what moves, what waits and why, and how the last day went.
// Rule: each number is a link to exactly the rows that it counts.
import { computed, html } from "../core/html.js";
import { bytes, count } from "../core/format.js";
import { href } from "../core/router.js";
import { useResource } from "../core/resource.js";
import { now } from "../core/zone.js";
import { Chart } from "../parts/chart.js";
import { Empty } from "../parts/empty.js";
import { Page } from "../parts/page.js";
import { ProblemBox } from "../parts/problem.js";
import { reasonPage, words } from "../parts/state.js";
import { FirstSteps } from "./first.js";

const CHANGES = { types: ["upload.", "client."] };
const MOVING = new Set(["uploading", "completing"]);
const SHOWN_REASONS = 6;
const HOURS = 24;
const ENDS = [
  ["completed", "good"],
  ["failed", "bad"],
  ["rejected", "bad"],
  ["expired", "wait"],
  ["cancelled", "idle"],
];

export default function Fleet() {
  const midnight = since.value;
  const { data, problem, loading, reload } = useResource("/fleet", { since: midnight }, CHANGES, { every: 2 });
  const history = useResource("/fleet/history", { hours: HOURS }, { types: ["upload.state_changed"] }, { every: 10 });
  const request = { path: "/fleet", query: { since: midnight } };
  return html`<${Page} title="Fleet" subtitle=${data && summary(data)} request=${request} command="backhaul fleet show">
    <${ProblemBox} problem=${problem} onRetry=${reload} />
    ${!data && loading && html`<div class="skeleton" role="status" aria-label="Reading"><div /><div /><div /></div>`}
    ${data && (total(data) ? html`<${Numbers} fleet=${data} hours=${history.data && history.data.hours} />` : html`<${NoClients} />`)}
  <//>`;
}

// Midnight of today in the reader's zone, as RFC 3339 in UTC. A page may stay open for days.
const since = computed(() => new Date(new Date(now.value).setHours(0, 0, 0, 0)).toISOString());

const total = ({ clients }) => clients.connected + clients.offline + clients.never_seen;
const opened = ({ open }) => Object.values(open).reduce((sum, one) => sum + one, 0);
const failed = ({ ended }) => ended.failed + ended.rejected + ended.expired;
const waitingOf = ({ waiting }) => waiting.filter((one) => !MOVING.has(one.code));
const movingOf = ({ waiting }, code) => waiting.find((one) => one.code === code)?.count || 0;

// One sentence: what a person would answer to "how is it going?".
function summary(fleet) {
  const { connected } = fleet.clients;
  const all = total(fleet);
  if (!all) return "No client has connected yet";
  const who = all === 1 ? `The one client is ${connected ? "online" : "not online"}` : connected === all ? `All ${count(all)} clients are online` : `${count(connected)} of ${count(all)} clients are online`;
  const waits = waitingOf(fleet).reduce((sum, one) => sum + one.count, 0);
  const work = waits ? `, ${count(waits)} ${waits === 1 ? "upload waits" : "uploads wait"}` : opened(fleet) ? ", nothing waits" : ", nothing is open";
  return who + work;
}

function Numbers({ fleet, hours }) {
  const uploads = fleet.ended.completed + failed(fleet) + fleet.ended.cancelled + opened(fleet);
  return html`<div class="stack">
    <${Tiles} fleet=${fleet} />
    ${!uploads && hours && !hours.some((hour) => Object.values(hour.ended).some(Boolean)) && html`<${FirstSteps} />`}
    <div class="columns">
      <${Waiting} fleet=${fleet} />
      <${Failures} fleet=${fleet} />
    </div>
    ${hours && html`<div class="columns"><${Throughput} hours=${hours} /><${Ends} hours=${hours} /></div>`}
  </div>`;
}

function Tiles({ fleet }) {
  const { clients, since } = fleet;
  const today = { ended_since: since };
  const waits = waitingOf(fleet).reduce((sum, one) => sum + one.count, 0);
  const proven = movingOf(fleet, "completing");
  return html`<ul class="tiles">
    <${Tile} label="Online" value=${count(clients.connected)} to=${href("/clients", { state: "connected" })} tone="good">
      <a href=${href("/clients", { state: "offline" })}>${count(clients.offline)} offline</a>
    <//>
    <${Tile} label="Uploading" value=${count(movingOf(fleet, "uploading"))} to=${href("/uploads", { reason_code: "uploading" })} tone="busy">
      ${proven ? html`<a href=${href("/uploads", { reason_code: "completing" })}>${count(proven)} being proven</a>` : "none being proven"}
    <//>
    <${Tile} label="Waiting" value=${`${count(waits)}${fleet.counted ? "" : "+"}`} to="#waiting" tone=${waits ? "wait" : "idle"} jump="waiting">
      ${waits ? "see why below" : "nothing is held up"}
    <//>
    <${Tile} label="Failed today" value=${count(failed(fleet))} to=${href("/uploads", { status: "failed", ...today })} tone=${failed(fleet) ? "bad" : "idle"}>
      <a href=${href("/uploads", { state: "completed", ...today })}>${count(fleet.ended.completed)} completed</a>
    <//>
    <${Tile} label="Bytes today" value=${bytes(fleet.bytes)} to=${href("/uploads", { state: "completed", ...today })} tone="idle">
      since midnight
    <//>
    <${Tile} label="Never seen" value=${count(clients.never_seen)} to=${href("/clients", { state: "never_seen" })} tone=${clients.never_seen ? "wait" : "idle"}>
      ${clients.never_seen ? "expected clients" : "all have connected"}
    <//>
  </ul>`;
}

// `jump` is the id of a part of this view, in place of another view.
function Tile({ label, value, to, tone, jump, children }) {
  const go = jump && ((event) => {
    event.preventDefault();
    document.getElementById(jump).scrollIntoView({ block: "start" });
    document.getElementById(jump).focus({ preventScroll: true });
  });
  return html`<li class=${`tile ${tone}`}>
    <span class="label">${label}</span>
    <a class="value" href=${to} onClick=${go} aria-label=${`${label}: ${value}`}>${value}</a>
    <span class="note">${children}</span>
  </li>`;
}

function Waiting({ fleet }) {
  const reasons = waitingOf(fleet);
  const shown = reasons.slice(0, SHOWN_REASONS);
  return html`<section class="card" id="waiting" tabindex="-1" aria-labelledby="waiting-title">
    <h2 id="waiting-title">Why uploads wait</h2>
    ${!reasons.length && html`<p class="quiet">No upload waits.</p>`}
    <${Ranking} rows=${shown} to=${(code) => href("/uploads", { reason_code: code })} tone="wait" />
    ${reasons.length > SHOWN_REASONS && html`<p class="quiet">The ${SHOWN_REASONS} commonest of ${reasons.length} reasons are shown.</p>`}
    ${!fleet.counted && html`<p class="quiet">There are very many open uploads; some of them are counted.</p>`}
  </section>`;
}

function Failures({ fleet }) {
  return html`<section class="card" aria-labelledby="failures-title">
    <h2 id="failures-title">Why uploads failed, last 24 hours</h2>
    ${!fleet.failures.length && html`<p class="quiet">No upload failed.</p>`}
    <${Ranking} rows=${fleet.failures} to=${(code) => href("/uploads", { error: code, ended_since: fleet.failures_since })} tone="bad" />
  </section>`;
}

function Ranking({ rows, to, tone }) {
  const most = Math.max(1, ...rows.map((one) => one.count));
  return html`<ol class="ranking">
    ${rows.map((one) => html`<li key=${one.code}>
      <a class="number" href=${to(one.code)} aria-label=${`${count(one.count)} uploads: ${words(one.code)}`}>${count(one.count)}</a>
      <span class="what"><span>${words(one.code)}</span> <a href=${reasonPage(one.code)}>What to do</a></span>
      <span class=${`track ${tone}`} aria-hidden="true"><span style=${{ width: `${(100 * one.count) / most}%` }}></span></span>
    </li>`)}
  </ol>`;
}

const startsOf = (hours) => hours.map((hour) => Date.parse(hour.begins_at) / 1000);

function Throughput({ hours }) {
  const sum = hours.reduce((all, hour) => all + hour.bytes, 0);
  return html`<section class="card" aria-labelledby="throughput-title">
    <h2 id="throughput-title">Received, last 24 hours <span class="quiet">${bytes(sum)}</span></h2>
    ${!sum ? html`<p class="quiet">Nothing was received yet.</p>` : html`<${Chart} label="Bytes received in each hour" times=${startsOf(hours)} unit=${bytes} series=${[{ label: "Received", tone: "busy", values: hours.map((hour) => hour.bytes) }]} />`}
  </section>`;
}

function Ends({ hours }) {
  const series = ENDS.map(([state, tone]) => ({ label: state, tone, values: hours.map((hour) => hour.ended[state]) }));
  const there = series.filter((one) => one.values.some(Boolean));
  const since = hours[0].begins_at;
  return html`<section class="card" aria-labelledby="ends-title">
    <h2 id="ends-title">How uploads ended, last 24 hours</h2>
    ${!there.length ? html`<p class="quiet">No upload ended yet.</p>` : html`<${Chart} label="Uploads that ended in each hour, by state" times=${startsOf(hours)} unit=${count} series=${there} />`}
    <ul class="legend">
      ${there.map((one) => html`<li key=${one.label} class=${one.tone}><a href=${href("/uploads", { state: one.label, ended_since: since })}><strong>${count(one.values.reduce((all, value) => all + value, 0))}</strong> ${one.label}</a></li>`)}
    </ul>
  </section>`;
}

function NoClients() {
  return html`<${Empty} title="No client has connected yet" text="A client is a device that runs backhaul-agent with this site's broker. It appears here by itself, as soon as it connects.">
    <a class="button primary" href="/help/">How to connect a device</a>
  <//>`;
}
