// Whether this site can work: its neighbours, what is wrong with the remedy for each, and the control planes that run.
// Rule: read once when the view is opened and after a lost stream, not by a timer; "Check again" asks again.
import { html } from "../core/html.js";
import { useResource } from "../core/resource.js";
import { Page } from "../parts/page.js";
import { ProblemBox } from "../parts/problem.js";
import { State, words } from "../parts/state.js";
import { DataTable } from "../parts/table.js";
import { Age, Instant } from "../parts/time.js";

const NAMES = { broker: "Broker", database: "Database", object_store: "Object store", clock: "Clock" };
const AFTER_A_LOSS = { types: ["resync"] };

export default function Health() {
  const { data, problem, loading, reload } = useResource("/health/details", null, AFTER_A_LOSS);
  const again = html`<button type="button" onClick=${reload} disabled=${loading}>${loading ? "Checking…" : "Check again"}</button>`;
  return html`<${Page} title="Health" subtitle=${data && summary(data)} actions=${again} request=${{ path: "/health/details" }} command="backhaul health details">
    <${ProblemBox} problem=${problem} onRetry=${reload} />
    ${!data && loading && html`<div class="skeleton" role="status" aria-label="Checking"><div /><div /><div /></div>`}
    ${data && html`<div class="stack">
      <${Checks} checks=${data.checks} />
      <${Findings} findings=${data.findings} />
      <div class="columns">
        <${Enforced} probe=${data.probe} />
        <${Replicas} replicas=${data.replicas} />
      </div>
      <p class="quiet">Checked <${Age} at=${data.as_of} />. <code>backhaul doctor --fix</code> repairs what can be repaired without loss; <code>backhaul-agent doctor</code> examines a device.</p>
    </div>`}
  <//>`;
}

function summary({ ready, findings }) {
  const wrong = findings.filter((one) => !one.fine).length;
  if (!ready) return "This control plane cannot work now";
  return wrong ? `It works; ${wrong === 1 ? "one finding needs" : `${wrong} findings need`} attention` : "It works, and nothing needs attention";
}

function Checks({ checks }) {
  return html`<ul class="checks" aria-label="Neighbours">
    ${Object.entries(NAMES).filter(([name]) => checks[name]).map(([name, title]) => html`<li key=${name} class="card">
      <h2>${title}</h2>
      ${checks[name] === "ok" ? html`<${State} value="ok" />` : html`<${State} value=${name === "clock" ? "warning" : "error"} /><span>${checks[name]}</span>`}
    </li>`)}
  </ul>`;
}

function Findings({ findings }) {
  // What is only noted about the object store stands with what it enforces.
  const shown = findings.filter((one) => !one.fine || one.name !== "note");
  const ordered = [...shown.filter((one) => !one.fine), ...shown.filter((one) => one.fine)];
  return html`<section class="card flush" aria-labelledby="findings-title">
    <h2 id="findings-title">Findings</h2>
    <ul class="findings">
      ${ordered.map((one) => html`<li key=${`${one.name} ${one.text}`}>
        <${State} value=${words(one.name)} tone=${one.fine ? "good" : "bad"} />
        <span>${!one.fine && html`<span class="hidden">Wrong: </span>`}${one.text}</span>
        ${one.remedy && html`<p class="remedy"><strong>Remedy:</strong> ${one.remedy}</p>`}
      </li>`)}
    </ul>
  </section>`;
}

function Enforced({ probe }) {
  const yes = (value) => (value ? "yes" : "no");
  return html`<section class="card" aria-labelledby="enforced-title">
    <h2 id="enforced-title">What the object store enforces</h2>
    ${!probe && html`<p class="quiet">It has not been probed yet.</p>`}
    ${probe && html`<dl class="facts">
      <dt>Digests of parts</dt><dd>${probe.part_digests.join(", ") || "none"}</dd>
      <dt>Digests of objects</dt><dd>${probe.object_digests.join(", ") || "none"}</dd>
      <dt>ETags are MD5s</dt><dd>${yes(probe.etag_is_md5)}</dd>
      <dt>No overwriting on request</dt><dd>${yes(probe.if_none_match)}</dd>
      <dt>Encrypts</dt><dd>${yes(probe.encrypts)}</dd>
      <dt>Clock</dt><dd>${probe.clock_skew === null ? "not known" : `${Math.abs(probe.clock_skew).toFixed(1)} s from this one`}</dd>
    </dl>
    ${probe.notes.length > 0 && html`<ul class="notes">${probe.notes.map((note) => html`<li key=${note}>${note}</li>`)}</ul>`}`}
  </section>`;
}

function Replicas({ replicas }) {
  const columns = [
    { title: "Host", wide: true, value: (row) => html`${row.host} ${row.this && html`<span class="tag">this one</span>`}` },
    { title: "Version", value: (row) => row.version },
    { title: "Since", value: (row) => html`<${Instant} at=${row.started_at} />` },
    { title: "Seen", value: (row) => html`<span class="nowrap"><${Age} at=${row.seen_at} /></span>` },
  ];
  return html`<section class="card" aria-labelledby="replicas-title">
    <h2 id="replicas-title">Control planes that share this database</h2>
    <${DataTable} label="Control planes" columns=${columns} rows=${replicas} keyOf=${(row) => row.replica_id} />
  </section>`;
}
