// The devices of the registry: whose key is pinned, who must be looked at, and who asks to join.
// Rule: a bundle holds secrets and is no thing for a page: it is made on the command line, which this page shows. The one
// secret that is shown is the token of a batch, once (batches.js).
import { html } from "../../core/html.js";
import { useResource } from "../../core/resource.js";
import { Link, path } from "../../core/router.js";
import { Copyable } from "../../parts/copy.js";
import { Empty } from "../../parts/empty.js";
import { Page } from "../../parts/page.js";
import { Pager } from "../../parts/pager.js";
import { ProblemBox } from "../../parts/problem.js";
import { Closed, lacks } from "../../parts/rights.js";
import { State } from "../../parts/state.js";
import { DataTable } from "../../parts/table.js";
import { Age } from "../../parts/time.js";
import { Batches } from "./batches.js";
import { Joining } from "./joining.js";

const ROWS = 50;
export const READS = "clients:read";
const ENROLL = "backhaul device enroll restaurant-7 --roots /data --out bundle.json";

export default function Devices({ query }) {
  const why = lacks(READS);
  const params = { limit: ROWS, cursor: query.cursor };
  // A key that is pinned is no event: the first contact of its client is.
  const { data, problem, loading, reload } = useResource(why ? null : "/devices", params, {}, { every: 2 });
  const keys = useResource(why ? null : "/keys", null, {}, { every: 5 });
  const frame = { title: "Devices", subtitle: keys.data && html`<${Link} to="/keys">${trustOf(keys.data)}<//>`, request: { path: "/devices", query: params }, command: "backhaul device list" };
  if (why) return html`<${Page} ...${frame}><${Closed} what="devices" why=${why} /><//>`;
  return html`<${Page} ...${frame}>
    <div class="stack">
      <${Joining} query=${query} onDone=${reload} />
      <${ProblemBox} problem=${problem} onRetry=${reload} />
      ${!(problem && !data) && html`<${DataTable} label="Devices" columns=${columnsOf(keys.data)} rows=${data && data.devices} keyOf=${(row) => row.client_id} loading=${loading}
        empty=${html`<${Empty} title="No device is enrolled yet" text="A device that is enrolled proves with a key of its own who it is. Clients that were never enrolled are not listed here." />`} />`}
      ${data && html`<${Pager} rows=${data.devices.length} cursor=${data.cursor} noun="devices" />`}
      <${Batches} query=${query} keys=${keys.data} />
      <section class="card stack"><h2>Enrol a device by a file</h2>
        <p>The file is made on the command line. It holds secrets: take it to the device, and delete it.</p>
        <${Copyable} label="Make the file" text=${ENROLL} />
      </section>
    </div>
  <//>`;
}

const trustOf = (keys) => (keys.version === null ? "No keys are published: devices obey unsigned commands" : `Devices obey version ${keys.version} of the keys`);

// Another key under a name stops dispatch until a person has looked.
export function DeviceState({ device }) {
  return html`<span class="row"><${State} value=${device.state} />${device.other_fingerprint && html`<${State} value="another key" tone="bad" />`}</span>`;
}

export const Print = ({ value }) => (value ? html`<code class="nowrap">${value}</code>` : html`<span class="quiet">not seen yet</span>`);

// Which list of keys a device reports, beside the one that is published.
export function Obeyed({ version, keys }) {
  if (version === null) return html`<span class="quiet">none</span>`;
  const latest = keys && keys.version;
  const behind = Boolean(latest) && version < latest;
  return html`<span class="nowrap">version ${version}</span>${behind ? html` <${State} value=${`behind: ${latest} is published`} tone="wait" />` : latest ? ", the latest" : ""}`;
}

const columnsOf = (keys) => [
  { title: "Device", value: (row) => html`<${Link} to=${path("devices", row.client_id)} class="id">${row.client_id}<//>` },
  { title: "State", value: (row) => html`<${DeviceState} device=${row} />` },
  { title: "Fingerprint of its key", value: (row) => html`<code>${row.fingerprint || "–"}</code>` },
  { title: "Obeys keys", value: (row) => html`<span><${Obeyed} version=${row.keys_version} keys=${keys} /></span>` },
  { title: "Key since", value: (row) => html`<span class="nowrap"><${Age} at=${row.pinned_at} /></span>` },
  { title: "Enrolled by", value: (row) => row.created_by },
  { title: "Note", value: (row) => row.note || html`<span class="quiet">–</span>` },
];
