// One record of the audit in full, with its place in its chain.
import { html } from "../../core/html.js";
import { plural } from "../../core/format.js";
import { Link, path } from "../../core/router.js";
import { Json } from "../../parts/json.js";
import { State } from "../../parts/state.js";
import { Instant } from "../../parts/time.js";
import { Target } from "./target.js";

const NAMED = 50;

export function Record({ record }) {
  const { clients, client_count: all } = record;
  const more = all - Math.min(clients.length, NAMED);
  return html`<dl class="facts">
    <dt>At</dt><dd><${Instant} at=${record.at} /></dd>
    <dt>Who</dt><dd>${record.subject || html`<span class="quiet">not known</span>`}${record.address && html` from <code>${record.address}</code>`}</dd>
    ${record.token_id && html`<dt>Token</dt><dd><${Link} to=${path("tokens", record.token_id)}><code>${record.token_id}</code><//></dd>`}
    <dt>Act</dt><dd><code>${record.act}</code> <${State} value=${record.outcome} /></dd>
    ${record.target && html`<dt>On</dt><dd><${Target} record=${record} /></dd>`}
    ${all > 0 && html`<dt>${plural(all, "client")}</dt><dd>${clients.slice(0, NAMED).map((one) => html`<${Link} key=${one} class="tag" to=${path("clients", one)}>${one}<//>`)}${more > 0 && html`<span class="quiet"> and ${more} more</span>`}</dd>`}
    ${record.client_set && html`<dt>SHA-256 of all ids</dt><dd><code>${record.client_set}</code></dd>`}
    <dt>Why</dt><dd>${record.reason || html`<span class="quiet">no reason was given</span>`}</dd>
    ${Object.keys(record.detail).length > 0 && html`<dt>Detail</dt><dd><${Json} value=${record.detail} label="Detail of the record" /></dd>`}
    <dt>Place</dt><dd>number ${record.number} of the chain <code>${record.writer}</code></dd>
    <dt>Hash</dt><dd><code>${record.hash}</code></dd>
    <dt>Hash before</dt><dd><code>${record.previous}</code></dd>
  </dl>`;
}
