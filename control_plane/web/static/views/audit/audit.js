// The audit: who did what, on what, why, and how it ended; denied requests too.
// Rule: the filters are those of REST, under the same names. A record has no event of its own: the list is read again
// after each change.
import { html } from "../../core/html.js";
import { instant, plural } from "../../core/format.js";
import { useResource } from "../../core/resource.js";
import { Link, setQuery } from "../../core/router.js";
import { now } from "../../core/zone.js";
import { backhaul, Copyable } from "../../parts/copy.js";
import { Empty } from "../../parts/empty.js";
import { Select } from "../../parts/fields.js";
import { TypedFilter } from "../../parts/filter.js";
import { Page } from "../../parts/page.js";
import { Pager } from "../../parts/pager.js";
import { ProblemBox } from "../../parts/problem.js";
import { Closed, lacks } from "../../parts/rights.js";
import { State } from "../../parts/state.js";
import { DataTable } from "../../parts/table.js";
import { Age, Instant } from "../../parts/time.js";
import { NEEDS } from "./link.js";
import { ACTS, OUTCOMES } from "./names.js";
import { Record } from "./record.js";
import { Target } from "./target.js";

const ROWS = 50;
const FILTERS = ["subject", "act", "outcome", "client_id", "target", "since", "until"];
const OPTIONS = { "--subject": "subject", "--act": "act", "--outcome": "outcome", "--client": "client_id", "--target": "target", "--since": "since", "--until": "until" };
const SINCE = [["", "any time"], ["3600", "the last hour"], ["86400", "the last 24 h"], ["604800", "the last 7 days"]];
const anyOf = (names) => [{ value: "", label: "any" }, ...names];

export default function Audit({ query }) {
  const why = lacks(NEEDS);
  const where = Object.fromEntries(FILTERS.map((name) => [name, query[name]]));
  const params = { ...where, limit: ROWS, cursor: query.cursor };
  const { data, problem, loading, reload } = useResource(why ? null : "/audit", params, {}, { every: 2 });
  const filtered = Object.values(where).some(Boolean);
  const narrow = (patch) => setQuery({ ...patch, cursor: null, record: null });
  const command = backhaul("audit list", Object.fromEntries(Object.entries(OPTIONS).map(([option, name]) => [option, query[name]])));
  const frame = { title: "Audit", subtitle: "Who did what, newest first", request: { path: "/audit", query: params }, command };
  if (why) return html`<${Page} ...${frame}><${Closed} what="the audit" why=${why} /><//>`;
  return html`<${Page} ...${frame}>
    <search class="filters even" aria-label="Filters">
      <${TypedFilter} label="Who" value=${query.subject} placeholder="the whole name" onChange=${(subject) => narrow({ subject })} />
      <${Select} label="Act" value=${query.act || ""} options=${anyOf(ACTS)} onChange=${(act) => narrow({ act })} />
      <${Select} label="Outcome" value=${query.outcome || ""} options=${anyOf(OUTCOMES)} onChange=${(outcome) => narrow({ outcome })} />
      <${TypedFilter} label="Client" value=${query.client_id} placeholder="the whole id" onChange=${(client_id) => narrow({ client_id })} />
      <${TypedFilter} label="On" value=${query.target} placeholder="job:nightly" onChange=${(target) => narrow({ target })} />
      <${Select} label="At" value=${query.since || ""} options=${sinceOptions(query.since)} onChange=${(since) => narrow({ since: /^\d+$/.test(since) ? new Date(Date.now() - since * 1000).toISOString() : since })} />
      ${query.until && html`<button type="button" class="chip" aria-label=${`Remove the filter: before ${query.until}`} onClick=${() => narrow({ until: null })}>before: <strong>${instant(query.until)}</strong> ×</button>`}
    </search>
    <div class="stack">
      <${ProblemBox} problem=${problem} onRetry=${reload} />
      ${data && data.unreadable.length > 0 && html`<${Unreadable} places=${data.unreadable} />`}
      ${!(problem && !data) && html`<${DataTable} label="Records" columns=${columnsOf(query)} rows=${data && data.records} keyOf=${placeOf} loading=${loading}
        detail=${(row) => query.record === placeOf(row) && html`<${Record} record=${row} />`} empty=${html`<${None} filtered=${filtered} />`} />`}
      ${data && html`<${Pager} rows=${data.records.length} cursor=${data.cursor} noun="records" /><${Check} page=${data} />`}
    </div>
  <//>`;
}

const placeOf = (row) => `${row.writer}/${row.number}`;

// The presets; and the instant of the address, when it is one.
function sinceOptions(since) {
  const presets = SINCE.map(([value, label]) => ({ value, label }));
  return since ? [...presets, { value: since, label: `since ${instant(since)}` }] : presets;
}

const columnsOf = (query) => [
  { title: "At", value: (row) => html`<span class="nowrap"><${Instant} at=${row.at} /></span>` },
  { title: "Who", value: (row) => (row.subject ? html`<${Link} to="/audit" query=${{ subject: row.subject }} title="What else this caller did">${row.subject}<//>` : html`<span class="quiet">not known</span>`) },
  { title: "Act", value: (row) => html`<code class="nowrap">${row.act}</code>` },
  { title: "Outcome", value: (row) => html`<${State} value=${row.outcome} />` },
  { title: "On", value: (row) => html`<${Target} record=${row} />` },
  { title: "Why", value: (row) => row.reason || html`<span class="quiet">–</span>` },
  { title: "Record", value: (row) => html`<${Opener} place=${placeOf(row)} open=${query.record === placeOf(row)} />` },
];

function Opener({ place, open }) {
  return html`<button type="button" aria-expanded=${open ? "true" : "false"} aria-label=${`Record ${place}`} onClick=${() => setQuery({ record: open ? null : place })}>${open ? "Close" : "Open"}</button>`;
}

function Unreadable({ places }) {
  return html`<div class="problem" role="alert">
    <strong>Some records were changed so that they cannot be read</strong>
    <p>Their places: ${places.join(", ")}. The check below names what else was changed.</p>
  </div>`;
}

// The page shows records; whether they are those that were written is checked with the key, outside.
function Check({ page }) {
  return html`<section class="card stack"><h2>Check that nothing was changed</h2>
    <${Signed} page=${page} />
    <p>Records are chained, and a checkpoint of each chain is signed once a minute. This finds what was changed or deleted:</p>
    <${Copyable} label="Check every record against the signed checkpoints" text=${backhaul("audit verify", { "--key": page.key })} />
    <p class="quiet">Take the key from where you keep it: one that this page shows proves nothing to you. <a href="/help/how-to/audit">What the check shows, and what not</a></p>
  </section>`;
}

const LATE = 180_000;

// How far the records are signed, and where the signatures are. Records that stay unsigned for minutes: the log says why.
function Signed({ page }) {
  const { checkpoint: last, unsigned, bucket } = page;
  const late = unsigned > 0 && last && now.value - new Date(last.at).getTime() > LATE;
  return html`<dl class="facts">
    <dt>Last checkpoint</dt><dd>${last ? html`<${Age} at=${last.at} />: up to record ${last.number} of the chain <code>${last.writer}</code>` : html`<span class="quiet">none yet</span>`} ${late && html`<${State} value="late" />`}</dd>
    <dt>Not signed yet</dt><dd>${unsigned ? `records of ${plural(unsigned, "chain")}` : "nothing"}</dd>
    <dt>Kept in</dt><dd>the log${bucket ? html`, and the bucket <code>${bucket}</code>${last && html` ${last.sent_at ? html`since <${Instant} at=${last.sent_at} />` : html`<${State} value="not there yet" tone="wait" />`}`}` : html` <span class="quiet">and the database; <code>AUDIT_BUCKET</code> names a bucket that nobody can change</span>`}</dd>
  </dl>`;
}

function None({ filtered }) {
  if (filtered) return html`<${Empty} title="No record matches" text="Change or remove a filter."><${Link} class="button" to="/audit">Show every record<//><//>`;
  return html`<${Empty} title="Nothing was done yet" text="Each act of a caller is a record: a request, a cancel, a label, a URL of an object; and each request that was denied.">
    <${Link} class="button primary" to="/new/trigger">Request a file<//>
  <//>`;
}
