// Browse the files of a device, folder by folder, and request some. Rule: while the device does not answer, its last
// listing is shown with its age; the view reads again by itself when the device connects.
import { html, useState } from "../../core/html.js";
import { send } from "../../core/api.js";
import { useResource } from "../../core/resource.js";
import { href, Link, navigate, path, route } from "../../core/router.js";
import { bytes, plural } from "../../core/format.js";
import { backhaul } from "../../parts/copy.js";
import { DataTable } from "../../parts/table.js";
import { Empty } from "../../parts/empty.js";
import { Field } from "../../parts/fields.js";
import { CopyMenu } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { State } from "../../parts/state.js";
import { Age, Instant } from "../../parts/time.js";
import { toast } from "../../parts/toast.js";
import { Progress } from "../uploads/progress.js";
import { uploadLink } from "../uploads/uploads.js";

const ROWS = 50;

export function Files({ client, query, uploads }) {
  const folder = query.folder || (client.roots.length === 1 ? client.roots[0] : "");
  return html`<section class="card flush files" aria-label="Files">
    <div class="inset row spread"><h2>Files</h2><${Typed} client=${client} /></div>
    ${folder ? html`<${Folder} key=${`${folder}?${query.after || ""}`} client=${client} folder=${folder} after=${query.after} uploads=${uploads} />` : html`<${Roots} client=${client} />`}
  </section>`;
}

// A path that a person knows already.
function Typed({ client }) {
  const [text, setText] = useState("");
  const submit = async (event) => {
    event.preventDefault();
    if (await request(client, [text.trim()])) setText("");
  };
  return html`<form class="row inline" onSubmit=${submit}>
    <${Field} label="Path of a file" value=${text} onInput=${setText} placeholder=${client.default_file || "/data/report.csv"} required />
    <button>Request</button>
  </form>`;
}

function Roots({ client }) {
  if (!client.roots.length) return html`<${Empty} title="There is nothing to browse" text=${client.state === "never_seen" ? "The folders that the device allows are known after its first contact." : "The device allows no folder (ALLOWED_ROOTS). A path that it allows may be requested above."} />`;
  return html`<ul class="inset roots">${client.roots.map((root) => html`<li key=${root}><button type="button" class="link" onClick=${() => open(root)}>${root}/</button></li>`)}</ul>`;
}

const open = (folder) => setFolder({ folder, after: null });
// A folder is a place of its own: the way back leads out of it.
function setFolder(patch) {
  const { path: now, query } = route.value;
  navigate(now, { ...query, ...patch });
}

// Wildcards in the name of a folder stand for themselves.
const escaped = (folder) => folder.replace(/[*?[]/g, "[$&]");

function Folder({ client, folder, after, uploads }) {
  const flat = !client.capabilities.includes("folders") && client.state !== "never_seen";
  const pattern = `${escaped(folder).replace(/\/$/, "")}/${flat ? "**" : "*"}`;
  const place = `${path("clients", client.client_id)}/files`;
  const params = { pattern, folders: flat ? null : "true", limit: ROWS, cursor: after };
  const { data, problem, loading, reload } = useResource(place, params, { types: ["client.connected", "client.disconnected"], client: client.client_id });
  const [chosen, setChosen] = useState(new Set());
  const [busy, setBusy] = useState(false);
  const latest = latestOf(uploads);
  const rows = data && [...data.files].sort((a, b) => b.folder - a.folder);
  const files = new Set(rows ? rows.filter((row) => !row.folder).map((row) => row.path) : []);
  const wanted = [...chosen].filter((one) => files.has(one));
  const fetchAll = async (paths) => {
    setBusy(true);
    if (await request(client, paths)) setChosen(new Set());
    setBusy(false);
  };
  const columns = [
    { title: "Name", wide: true, value: (row) => html`<${Name} row=${row} flat=${flat} folder=${folder} />` },
    { title: "Size", end: true, value: (row) => (row.folder ? "" : html`<span class="nowrap">${bytes(row.size)}</span>`) },
    { title: "Modified", value: (row) => html`<span class="nowrap"><${Instant} at=${new Date(row.mtime_ns / 1e6).toISOString()} /></span>` },
    { title: "Upload", value: (row) => (row.folder ? "" : html`<${Known} upload=${latest.get(row.path)} />`) },
    { title: "Request", end: true, value: (row) => (row.folder ? "" : html`<button type="button" disabled=${busy} aria-label=${`Request ${row.path}`} onClick=${() => fetchAll([row.path])}>Request</button>`) },
  ];
  return html`
    <div class="inset row spread">
      <${Crumbs} roots=${client.roots} folder=${folder} />
      <span class="row">
        ${data && data.live && html`<span class="quiet" role="status">As of <${Instant} at=${data.as_of} /></span>`}
        <${CopyMenu} request=${{ path: place, query: params }} command=${backhaul("files", { "--folders": !flat }, client.client_id, pattern)} />
      </span>
    </div>
    ${data && !data.live && html`<p class="banner wait inset" role="status">${sentence(data.reason && data.reason.text)} This is what it listed <strong><${Age} at=${data.as_of} /></strong> (<${Instant} at=${data.as_of} />). ${client.connected ? html`<button type="button" onClick=${reload}>Try again</button>` : "What you request waits until it connects."}</p>`}
    ${problem && (problem.type === "client-silent" ? html`<${Silent} client=${client} onRetry=${reload} />` : html`<div class="inset"><${ProblemBox} problem=${problem} onRetry=${reload} /></div>`)}
    ${wanted.length > 0 && html`<div class="bulk inset"><strong>${plural(wanted.length, "file")} selected</strong><button type="button" class="primary" disabled=${busy} onClick=${() => fetchAll(wanted)}>Request ${plural(wanted.length, "file")}</button><button type="button" class="link" onClick=${() => setChosen(new Set())}>Clear the selection</button></div>`}
    ${!(problem && !data) && html`<${DataTable} label=${`Files in ${folder}`} rows=${rows} keyOf=${(row) => row.path} columns=${columns} loading=${loading} selected=${chosen} onSelect=${setChosen} selectable=${(row) => !row.folder} empty=${html`<p class="quiet inset">${data && data.cursor ? "Nothing that matches so far." : "The folder is empty."}</p>`} />`}
    ${data && (data.cursor || after) && html`<p class="pager inset"><span>${data.cursor ? `The first ${plural(rows.length, "entry", "entries")} ${after ? "of this page " : ""}are shown; there are more.` : "These are the last ones."}</span>
      ${after && html`<button type="button" onClick=${() => setFolder({ after: null })}>First page</button>`}
      ${data.cursor && html`<button type="button" onClick=${() => setFolder({ folder, after: data.cursor })}>Next page</button>`}</p>`}`;
}

function Name({ row, flat, folder }) {
  const name = flat ? row.path.slice(folder.length + 1) : row.path.split("/").pop();
  if (!row.folder) return html`<span class="path">${name}</span>`;
  return html`<button type="button" class="link folder" onClick=${() => open(row.path)}>${name}/</button>`;
}

// Where one is, from the allowed folder down; each step leads there.
function Crumbs({ roots, folder }) {
  const root = roots.filter((one) => folder === one || folder.startsWith(`${one.replace(/\/$/, "")}/`)).sort((a, b) => b.length - a.length)[0] || folder;
  const below = folder.slice(root.length).split("/").filter(Boolean);
  const steps = [root, ...below.map((_, index) => `${root.replace(/\/$/, "")}/${below.slice(0, index + 1).join("/")}`)];
  return html`<nav class="crumbs" aria-label="Folder">
    ${roots.length > 1 && html`<button type="button" class="link" onClick=${() => open(null)}>Allowed folders</button>`}
    ${steps.map((step, index) => {
      const name = index === 0 ? root : below[index - 1];
      return index === steps.length - 1 ? html`<strong key=${step} aria-current="location">${name}</strong>` : html`<button key=${step} type="button" class="link" onClick=${() => open(step)}>${name}</button>`;
    })}
  </nav>`;
}

function Silent({ client, onRetry }) {
  if (client.connected) {
    const text = "It is connected, so it may be busy, or its connection slow. If you know the path of a file, request it above.";
    return html`<div class="inset"><${Empty} title="The device did not answer in time" text=${text}><button type="button" onClick=${onRetry}>Try again</button><//></div>`;
  }
  return html`<div class="inset"><${Empty} title="The device is offline, and never listed this folder" text="The listing waits: this view reads again by itself as soon as the device connects. If you know the path of a file, request it above: the request waits too." /></div>`;
}

function Known({ upload }) {
  if (!upload) return html`<span class="quiet">–</span>`;
  return html`<${Link} ...${uploadLink(upload)} class="known">${upload.status === "in_progress" ? html`<${Progress} upload=${upload} />` : html`<${State} value=${upload.state} />`}<//>`;
}

const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "The client does not answer.");

// The newest upload of each path.
function latestOf(uploads) {
  const found = new Map();
  for (const one of uploads) if (!found.has(one.file_path)) found.set(one.file_path, one);
  return found;
}

// One upload a path; whether all were taken. What was refused is shown, and the others stay.
async function request(client, paths) {
  const results = await Promise.allSettled(paths.map((one) => send("POST", path("trigger-download", client.client_id), { file_path: one })));
  const refused = results.filter((one) => one.status === "rejected").map((one) => one.reason);
  const done = results.length - refused.length;
  const first = results.find((one) => one.status === "fulfilled");
  if (done) {
    const waits = client.connected ? "" : "; it waits until the client connects";
    const to = done === 1 ? href(path("uploads", first.value.body.upload_id)) : href("/uploads", { client_id: client.client_id });
    toast(`${plural(done, "file")} requested${waits}`, { to });
  }
  if (refused.length) toast(`${plural(refused.length, "request")} refused: ${refused[0].detail || refused[0].title}`, { kind: "bad" });
  return refused.length === 0;
}
