// Batches: many devices of one image join with one token. Made here, listed, and revoked.
// Rule: the token is a secret: it is in the answer to its making alone, and is gone from the page with the view. A name
// that is given is no event: the list is read when a person asks for it, and after each change.
import { html, useState } from "../../core/html.js";
import { send } from "../../core/api.js";
import { count, plural } from "../../core/format.js";
import { useResource } from "../../core/resource.js";
import { path, setQuery } from "../../core/router.js";
import { now } from "../../core/zone.js";
import { Copyable, quoted } from "../../parts/copy.js";
import { confirm } from "../../parts/dialog.js";
import { Check, Field } from "../../parts/fields.js";
import { ProblemBox } from "../../parts/problem.js";
import { lacks } from "../../parts/rights.js";
import { State } from "../../parts/state.js";
import { DataTable } from "../../parts/table.js";
import { Age, Instant } from "../../parts/time.js";
import { toast } from "../../parts/toast.js";
import { askWhy, Why, whyHeader } from "../../parts/why.js";
import { filled, labelsOf, linesOf, numberOf, secondsOf, wordsOf } from "../new/texts.js";
import { DECIDES } from "./joining.js";

const EMPTY = { names: "", count: "", life: "30d", auto: false, serials: "", roots: "", hosts: "", labels: "" };

// `keys` is REST's answer about the published keys, once it is there: an image needs the digest of the first root.
export function Batches({ query, keys }) {
  const why = lacks(DECIDES);
  const open = query.batches === "yes" && !why;
  const { data, problem, loading, reload } = useResource(open ? "/batches" : null, null, {}, { every: 2 });
  const [adding, setAdding] = useState(false);
  const [made, setMade] = useState(null);
  const after = (batch) => (setMade(batch), setAdding(false), reload());
  const shown = open && !(problem && !data);
  return html`<section class="card stack" aria-labelledby="batches">
    <div class="row spread"><h2 id="batches">Batches: many devices of one image</h2>
      <span class="row">${shown && html`<button type="button" class="primary" aria-expanded=${adding ? "true" : "false"} onClick=${() => setAdding(!adding)}>New batch</button>`}
        <button type="button" disabled=${Boolean(why) || (open && loading)} onClick=${() => (open ? reload() : setQuery({ batches: "yes" }))}>${open ? "Read again" : "Show batches"}</button></span></div>
    ${why && html`<p class="quiet">Batches are seen and made with a token for all clients that has the scope ${DECIDES}.</p>`}
    ${!open && !why && html`<p class="quiet">A batch is a token for the image of many devices: each that shows it gets the next free name.</p>`}
    ${shown && made && html`<${Token} batch=${made} keys=${keys} onClose=${() => setMade(null)} />`}
    ${shown && adding && html`<${Add} onMade=${after} onClose=${() => setAdding(false)} />`}
    <${ProblemBox} problem=${open && problem} />
    ${shown && html`<${DataTable} label="Batches" columns=${columnsOf(reload)} rows=${data && data.batches} keyOf=${(row) => row.batch_id} loading=${loading} empty=${html`<p class="quiet">There are none yet.</p>`} />`}
  </section>`;
}

// Whether a device may still join with its token.
const stateOf = (batch) => (batch.revoked_at ? "revoked" : Date.parse(batch.expires_at) <= now.value ? "expired" : "open");

const columnsOf = (reload) => [
  { title: "Names", value: (row) => html`<strong class="nowrap">${row.names}</strong>` },
  { title: "State", value: (row) => html`<${State} value=${stateOf(row)} tone=${stateOf(row) === "open" ? "good" : ""} />` },
  { title: "Names given", value: (row) => html`<span class="nowrap">${count(row.taken)} of ${count(row.count)}</span>` },
  { title: "Devices join", value: (row) => html`<span>${row.auto ? "by themselves" : "when approved"}${row.serials > 0 && `, of ${plural(row.serials, "serial")}`}</span>` },
  { title: "Until", value: (row) => html`<span><${Instant} at=${row.expires_at} /> <span class="quiet"><${Age} at=${row.expires_at} /></span></span>` },
  { title: "Made by", value: (row) => html`<span>${row.created_by} <span class="quiet"><${Age} at=${row.created_at} /></span></span>` },
  { title: "Id", value: (row) => html`<code class="nowrap">${row.batch_id}</code>` },
  { title: "End it", value: (row) => (stateOf(row) === "open" ? html`<button type="button" class="danger" aria-label=${`Revoke ${row.names}`} onClick=${async () => (await askRevoke(row)) && reload()}>Revoke…</button>` : html`<span class="quiet">–</span>`) },
];

function Token({ batch, keys, onClose }) {
  const options = ["--url", quoted(location.origin), "--root-sha256", quoted((keys && keys.root_sha256) || "9f2c…"), "--batch-token-file", "/etc/backhaul/token.txt"];
  return html`<section class="card stack secret" role="status" aria-label="The token of the new batch">
    <h3>The token for ${batch.names}: shown now, and never again</h3>
    <${Copyable} label="Into a file of the image that root alone reads" text=${batch.token} />
    <${Copyable} label="On the device, where the file is /etc/backhaul/token.txt" text=${["backhaul-agent enroll", ...options].join(" ")} />
    <div class="row"><button type="button" onClick=${onClose}>I have stored it</button></div>
  </section>`;
}

function Add({ onMade, onClose }) {
  const [form, setForm] = useState(EMPTY);
  const [problem, setProblem] = useState(null);
  const bind = (name) => ({ value: form[name], onInput: (text) => setForm({ ...form, [name]: text }) });
  const submit = async (event) => {
    event.preventDefault();
    setProblem(null);
    try {
      onMade((await send("POST", "/batches", bodyOf(form))).body);
    } catch (error) {
      setProblem(error);
    }
  };
  return html`<form class="stack" onSubmit=${submit} aria-label="New batch">
    <div class="form">
      <${Field} label="Names" ...${bind("names")} placeholder="till-{n:03}" required hint="{n}, {n:03} or {serial} stands for what differs" />
      <${Field} label="How many devices" ...${bind("count")} inputmode="numeric" placeholder="100" hint="With serials: all of them when empty" />
      <${Field} label="For how long" ...${bind("life")} required hint="30d or 12h; then nobody joins with the token" />
      <${Field} label="Labels" ...${bind("labels")} placeholder="site=berlin" />
      <${Field} type="textarea" label="Folders that may be uploaded, one a line" ...${bind("roots")} placeholder="/data" />
      <${Field} type="textarea" label="Hosts that parts may be sent to, one a line" ...${bind("hosts")} placeholder="https://s3.example.com/backups/" />
      <${Field} type="textarea" label="Serials that may join" ...${bind("serials")} placeholder="A1077" hint="Any device when empty" />
    </div>
    <${Check} label="They join without an approval: whoever has the token joins" checked=${form.auto} onChange=${(auto) => setForm({ ...form, auto })} />
    <${ProblemBox} problem=${problem} />
    <div class="row"><button class="primary" disabled=${!form.names.trim()}>Make the batch</button><button type="button" onClick=${onClose}>Close</button></div>
  </form>`;
}

function bodyOf(form) {
  const serials = wordsOf(form.serials);
  return filled({
    names: form.names.trim(),
    count: form.count.trim() || !serials.length ? numberOf(form.count) : serials.length,
    expires_in: secondsOf(form.life),
    auto: form.auto,
    serials,
    allowed_roots: linesOf(form.roots),
    upload_hosts: linesOf(form.hosts),
    labels: labelsOf(form.labels),
  });
}

function askRevoke(batch) {
  askWhy();
  return confirm({
    title: `Revoke ${batch.names}`,
    act: "Revoke the batch",
    danger: true,
    text: html`<div class="stack"><p>Its token is taken no more. The devices that have joined stay: ${plural(batch.taken, "name")} of it ${batch.taken === 1 ? "was" : "were"} given.</p><${Why} placeholder="the image leaked" /></div>`,
    run: async () => {
      await send("POST", `${path("batches", batch.batch_id)}/revoke`, null, whyHeader());
      toast("The batch is revoked");
    },
  });
}
