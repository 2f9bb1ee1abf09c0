// Devices that show a code and wait: a person compares the fingerprint with the screen of the device, and names it.
// Rule: a request is no event, and waits in memory: the list is read when a person asks for it, and after each change.
import { html, signal } from "../../core/html.js";
import { send } from "../../core/api.js";
import { useResource } from "../../core/resource.js";
import { path, setQuery } from "../../core/router.js";
import { confirm } from "../../parts/dialog.js";
import { Check, Field } from "../../parts/fields.js";
import { ProblemBox } from "../../parts/problem.js";
import { lacks } from "../../parts/rights.js";
import { DataTable } from "../../parts/table.js";
import { Age } from "../../parts/time.js";
import { toast } from "../../parts/toast.js";
import { filled, linesOf } from "../new/texts.js";

export const DECIDES = "devices:admin";
const EMPTY = { name: "", roots: "", hosts: "", compared: false };
const form = signal(EMPTY);

export function Joining({ query, onDone }) {
  const why = lacks(DECIDES);
  const open = query.joining === "yes" && !why;
  const { data, problem, loading, reload } = useResource(open ? "/enrollments" : null, null, {}, { every: 2 });
  const done = () => (reload(), onDone());
  return html`<section class="card stack" aria-labelledby="joining">
    <div class="row spread"><h2 id="joining">Devices that ask to join</h2>
      <button type="button" disabled=${Boolean(why) || (open && loading)} onClick=${() => (open ? reload() : setQuery({ joining: "yes" }))}>${open ? "Look again" : "Look for devices"}</button></div>
    ${why && html`<p class="quiet">Who joins is decided with a token for all clients that has the scope ${DECIDES}.</p>`}
    ${!open && !why && html`<p class="quiet">A device without an account shows a code on its screen, and waits up to 15 minutes.</p>`}
    <${ProblemBox} problem=${open && problem} />
    ${open && !(problem && !data) && html`<${DataTable} label="Devices that ask" columns=${columnsOf(done)} rows=${data && data.requests} keyOf=${(row) => row.user_code} loading=${loading}
      empty=${html`<p class="quiet">None asks now. Start <code>backhaul-agent enroll</code> on the device, and look again.</p>`} />`}
  </section>`;
}

const columnsOf = (done) => [
  { title: "Code", value: (row) => html`<strong class="nowrap">${row.user_code}</strong>` },
  { title: "Fingerprint", value: (row) => html`<code>${row.fingerprint}</code>` },
  { title: "Its batch names it", value: (row) => (row.proposed ? html`<strong class="nowrap">${row.proposed}</strong>` : html`<span class="quiet">–</span>`) },
  { title: "From", value: (row) => row.address },
  { title: "Asked", value: (row) => html`<${Age} at=${row.asked_at} />` },
  { title: "Decide", value: (row) => html`<span class="row"><button type="button" class="primary" onClick=${async () => (await approve(row)) && done()}>Approve…</button><button type="button" class="danger" onClick=${async () => (await reject(row)) && done()}>Reject…</button></span>` },
];

function approve(row) {
  form.value = { ...EMPTY, name: row.proposed || "" };
  return confirm({
    title: `Approve ${row.user_code}`,
    act: "Approve the device",
    text: html`<${Approval} row=${row} />`,
    run: async () => {
      const { name, roots, hosts, compared } = form.value;
      if (!name.trim()) throw { title: "The device needs a name" };
      if (!compared) throw { title: "Compare the fingerprint first", detail: "Another device may ask at the same time: only the fingerprint tells them apart." };
      const body = filled({ client_id: name.trim(), fingerprint: row.fingerprint, allowed_roots: linesOf(roots), upload_hosts: linesOf(hosts) });
      await send("POST", `${path("enrollments", row.user_code)}/approve`, body);
      toast(`${body.client_id} is enrolled; it fetches its settings within seconds`);
    },
  });
}

function Approval({ row }) {
  const bind = (name) => ({ value: form.value[name], onInput: (text) => (form.value = { ...form.value, [name]: text }) });
  return html`<div class="stack">
    <p>The screen of the device must show:<br /><strong><code>${row.fingerprint}</code></strong></p>
    <${Check} label="It shows exactly this" checked=${form.value.compared} onChange=${(compared) => (form.value = { ...form.value, compared })} />
    <${Field} label="Name of the device" ...${bind("name")} placeholder="restaurant-7" required hint=${row.proposed ? "Its batch gives it this name; what stays empty below is as the batch says" : ""} />
    <${Field} type="textarea" label="Folders that may be uploaded, one a line" ...${bind("roots")} placeholder="/data" />
    <${Field} type="textarea" label="Hosts that parts may be sent to, one a line" ...${bind("hosts")} placeholder="https://s3.example.com/backups/" />
  </div>`;
}

function reject(row) {
  return confirm({ title: `Reject ${row.user_code}`, act: "Reject the device", danger: true, text: "Its code is answered as one that has expired. It can ask again under another code.", run: () => send("POST", `${path("enrollments", row.user_code)}/reject`) });
}
