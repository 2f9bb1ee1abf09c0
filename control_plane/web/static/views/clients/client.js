// One client: what it is, when it was there, what it uploads, which files it has.
import { html } from "../../core/html.js";
import { send } from "../../core/api.js";
import { useResource } from "../../core/resource.js";
import { Link, navigate, path } from "../../core/router.js";
import { count as shown } from "../../core/format.js";
import { DataTable } from "../../parts/table.js";
import { backhaul } from "../../parts/copy.js";
import { confirm } from "../../parts/dialog.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { Age, Instant } from "../../parts/time.js";
import { toast } from "../../parts/toast.js";
import { RecordsLink } from "../audit/link.js";
import { columnsOf } from "../uploads/uploads.js";
import { Budget } from "./budget.js";
import { ClientState } from "./clients.js";
import { Files } from "./files.js";
import { OperatorLabels } from "./operator.js";
import { Presence } from "./presence.js";

const RECENT = 20;
const SHOWN = 5;

export default function Client({ params, query }) {
  const place = path("clients", params.id);
  const { data: client, problem, reload } = useResource(place, null, { types: ["client."], client: params.id });
  const uploads = useResource("/uploads", { client_id: params.id, limit: RECENT }, { types: ["upload."], client: params.id });
  const frame = { title: params.id, request: { path: place }, command: backhaul("status", {}, params.id) };
  if (!client) return html`<${Page} ...${frame}><${ProblemBox} problem=${problem} onRetry=${reload} />${!problem && html`<p class="quiet" role="status">Reading…</p>`}<//>`;
  const recent = uploads.data ? uploads.data.uploads : [];
  return html`<${Page} ...${frame} subtitle=${html`<${ClientState} client=${client} /> <${Contact} client=${client} />`}
      actions=${html`<${Link} class="button primary" to="/new/trigger" query=${{ client: params.id }}>New upload<//><button type="button" class="danger" onClick=${() => forget(params.id)}>Forget…</button>`}>
    <div class="stack">
      <${ProblemBox} problem=${problem} onRetry=${reload} />
      <${Presence} client=${client} />
      <${Files} client=${client} query=${query} uploads=${recent} />
      <section class="card flush"><h2>Uploads</h2>
        <${ProblemBox} problem=${uploads.problem} onRetry=${uploads.reload} />
        <${DataTable} label="Uploads of this client" rows=${uploads.data && recent.slice(0, SHOWN)} keyOf=${(row) => row.upload_id} columns=${COLUMNS} loading=${uploads.loading} empty=${html`<p class="quiet inset">Nothing was requested of this client yet.</p>`} />
        ${(recent.length > SHOWN || (uploads.data && uploads.data.cursor)) && html`<p class="inset">The newest ${SHOWN} are shown. <${Link} to="/uploads" query=${{ client_id: params.id }}>Every upload of this client<//></p>`}
      </section>
      <div class="columns">
        <${OperatorLabels} client=${client} onDone=${reload} />
        <${Budget} budget=${client.budget} />
        <${Facts} client=${client} />
      </div>
    </div>
  <//>`;
}

const COLUMNS = columnsOf({ client: false });

function Contact({ client }) {
  if (client.state === "never_seen") return html`<span>expected, and its agent has not connected yet</span>`;
  if (client.state === "offline") return html`<span>since <${Instant} at=${client.last_activity} /> (<${Age} at=${client.last_activity} />)</span>`;
  return html`<span>since <${Instant} at=${client.connected_at} /> (<${Age} at=${client.connected_at} />)</span>`;
}

function Facts({ client }) {
  const { agent } = client;
  const seen = client.state !== "never_seen";
  const rows = [
    ["Note", client.note],
    ["Default file", client.default_file && html`<code>${client.default_file}</code>`],
    ["Allowed folders", client.roots.length ? client.roots.map((root) => html`<code key=${root} class="line">${root}</code>`) : seen && "none"],
    ["File types", client.types.join(", ")],
    ["Time zone", client.timezone],
    ["Host", seen && [agent.hostname, agent.os, agent.arch].filter(Boolean).join(" · ")],
    ["Policy", seen && agent.policy.join(", ")],
    ["Agent", seen && `${agent.version}${client.supported ? "" : ": not supported by this control plane"}`],
    ["Can", client.capabilities.join(", ").replaceAll("_", " ")],
    ["Commands", seen && (client.keys_version === null ? "obeyed unsigned: it has no root of trust" : html`verified with version ${client.keys_version} of the keys; <${Link} to=${path("devices", client.client_id)}>its key<//>`)],
    ["Not verified", client.unverified > 0 && `${shown(client.unverified)} messages since its start were signed by no key of the list`],
    ["Installation", client.install_id && html`<code>${client.install_id}</code>`],
    ["Expected", client.expected ? "yes: an operator named it as part of the fleet" : "no: it connected by itself"],
  ];
  return html`<section class="card"><h2>Facts</h2><dl class="facts">${rows.filter(([, value]) => value).map(([name, value]) => html`<dt key=${name}>${name}</dt><dd key=${`${name}=`}>${value}</dd>`)}<${RecordsLink} client_id=${client.client_id} /></dl></section>`;
}

async function forget(id) {
  const done = await confirm({
    title: `Forget ${id}`,
    text: "Its row, its labels and its kept listings are deleted; its uploads and their objects stay. A device that still runs comes back with its next contact.",
    act: "Forget",
    danger: true,
    run: () => send("DELETE", path("clients", id)),
  });
  if (done) {
    toast(`${id} is forgotten`);
    navigate("/clients");
  }
}
