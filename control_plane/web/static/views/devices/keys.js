// The keys that the fleet obeys: whose they are, what each may sign, and when one expires. Read only.
// Rule: a list is signed by the root of trust, whose key is on no server: it is made and published on the command line.
import { html } from "../../core/html.js";
import { useResource } from "../../core/resource.js";
import { Link } from "../../core/router.js";
import { now } from "../../core/zone.js";
import { Copyable } from "../../parts/copy.js";
import { Empty } from "../../parts/empty.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { Closed, lacks } from "../../parts/rights.js";
import { State } from "../../parts/state.js";
import { DataTable } from "../../parts/table.js";
import { Age, Instant } from "../../parts/time.js";
import { READS } from "./devices.js";

export default function Keys() {
  const why = lacks(READS);
  // A list that is published is no event, and is rare: it is read again with a change, at most every five seconds.
  const { data: keys, problem, loading, reload } = useResource(why ? null : "/keys", null, {}, { every: 5 });
  const frame = { title: "Keys", subtitle: "Whose commands the devices obey", request: { path: "/keys" }, command: "backhaul keys published" };
  if (why) return html`<${Page} ...${frame}><${Closed} what="the keys" why=${why} /><//>`;
  if (!keys) return html`<${Page} ...${frame}><${ProblemBox} problem=${problem} onRetry=${reload} />${!problem && html`<div class="skeleton" role="status" aria-label="Reading"><div /><div /></div>`}<//>`;
  return html`<${Page} ...${frame}>
    <div class="stack">
      <${ProblemBox} problem=${problem} onRetry=${reload} />
      ${keys.warnings.length > 0 && html`<div class="problem" role="alert" aria-label="Warnings">
        <strong>The list needs attention</strong>
        <ul>${keys.warnings.map((one) => html`<li key=${one}>${one}</li>`)}</ul>
      </div>`}
      ${keys.version === null ? html`<${None} />` : html`<${DataTable} label="Keys" columns=${columnsOf(keys.kid)} rows=${keys.keys} keyOf=${(row) => row.kid} loading=${loading} empty=${html`<p class="quiet">The list is empty: devices obey nobody.</p>`} />`}
      <section class="card"><h2>Facts</h2><dl class="facts">
        ${keys.version !== null && html`<dt>Version</dt><dd>${keys.version}, signed by root ${keys.root}</dd>
          <dt>Published</dt><dd><${Instant} at=${keys.published_at} /> by ${keys.published_by}</dd>
          <dt>The list ends</dt><dd>${keys.expires ? html`<${Instant} at=${keys.expires} /> <span class="quiet"><${Age} at=${keys.expires} />: ${Date.parse(keys.expires) > now.value ? "then" : "since then"} devices obey nobody</span>` : html`<span class="quiet">never</span>`}</dd>
          <dt>First root, SHA-256</dt><dd><code>${keys.root_sha256}</code></dd>
          <dt>Devices</dt><dd><${Link} to="/devices">Which list each device obeys<//></dd>`}
        <dt>This control plane signs with</dt><dd><code>${keys.kid}</code></dd>
        <dt>Revoked keys</dt><dd>${keys.revoked.length ? html`<ul class="labels">${keys.revoked.map((kid) => html`<li key=${kid}><code>${kid}</code></li>`)}</ul>` : html`<span class="quiet">none</span>`}</dd>
      </dl></section>
      ${keys.version !== null && html`<section class="card stack"><h2>Change the list</h2>
        <p>Where the root key is: list a key again before it expires, or revoke one; then publish.</p>
        <${Copyable} label="List this control plane's key again, for two years" text="backhaul keys add control-plane --control-plane" />
        <${Copyable} label="Publish the list" text="backhaul keys publish" />
        <p><a href="/help/how-to/sign-the-fleet">How keys are changed</a></p>
      </section>`}
    </div>
  <//>`;
}

const words = (all) => all.map((one) => html`<span class="tag" key=${one}>${one}</span>`);

function columnsOf(own) {
  return [
    { title: "Whose", value: (row) => html`<span><strong>${row.principal}</strong> ${row.kid === own && html`<span class="tag nowrap">this control plane</span>`}</span>` },
    { title: "Key", value: (row) => html`<code>${row.kid}</code>` },
    { title: "May sign", value: (row) => html`<span>${words(row.roles)}</span>` },
    { title: "For files", value: (row) => html`<span>${row.paths.map((one) => html`<code key=${one}>${one} </code>`)}</span>` },
    { title: "For uploads of", value: (row) => row.owners.join(", ") },
    { title: "Expires", value: (row) => html`<span>${row.expires ? html`<${Instant} at=${row.expires} /> <span class="quiet"><${Age} at=${row.expires} /></span>` : html`<span class="quiet">never</span>`} ${row.expiry !== "fine" && html`<${State} value=${row.expiry} tone=${row.expiry === "expired" ? "bad" : "wait"} />`}</span>` },
  ];
}

function None() {
  return html`<${Empty} title="No keys are published" text="The fleet has no root of trust: its devices obey unsigned commands, from whoever may publish them at the broker.">
    <a class="button" href="/help/how-to/sign-the-fleet">Sign the fleet</a>
  <//>`;
}
