// One device: its key, another key that was seen under its name, whether it knows the latest keys, and its end.
import { html } from "../../core/html.js";
import { send } from "../../core/api.js";
import { useResource } from "../../core/resource.js";
import { Link, navigate, path } from "../../core/router.js";
import { backhaul, Copyable } from "../../parts/copy.js";
import { confirm } from "../../parts/dialog.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { Closed, lacks } from "../../parts/rights.js";
import { Age, Instant } from "../../parts/time.js";
import { toast } from "../../parts/toast.js";
import { askWhy, Why, whyHeader } from "../../parts/why.js";
import { RecordsLink } from "../audit/link.js";
import { useClient } from "../new/suggest.js";
import { DeviceState, Obeyed, Print, READS } from "./devices.js";
import { DECIDES } from "./joining.js";

export default function DeviceView({ params }) {
  const id = params.id;
  const at = path("devices", id);
  const why = lacks(READS);
  const { data: device, problem, reload } = useResource(why ? null : at, null, {}, { every: 2 });
  const keys = useResource(why ? null : "/keys", null, {}, { every: 5 });
  const client = useClient(why ? "" : id);
  const frame = { title: id, request: { path: at }, command: backhaul("device show", {}, id) };
  if (why) return html`<${Page} ...${frame}><${Closed} what="devices" why=${why} /><//>`;
  if (!device) return html`<${Page} ...${frame}><${ProblemBox} problem=${problem} onRetry=${reload} />${!problem && html`<div class="skeleton" role="status" aria-label="Reading"><div /><div /></div>`}<//>`;
  const over = device.state === "revoked";
  const may = !lacks(DECIDES);
  const after = (act) => async () => (await act(at, device)) && reload();
  return html`<${Page} ...${frame} subtitle=${html`<${DeviceState} device=${device} />`}
      actions=${may && (over ? html`<button type="button" class="danger" onClick=${() => askForget(at, device)}>Forget…</button>` : html`<button type="button" class="danger" onClick=${after(askRevoke)}>Revoke…</button>`)}>
    <div class="stack">
      <${ProblemBox} problem=${problem} onRetry=${reload} />
      ${device.other_fingerprint && html`<section class="problem" role="alert" aria-label="Another key">
        <strong>Another key was seen under this name</strong>
        <p>Seen <${Age} at=${device.other_seen_at} />: <code>${device.other_fingerprint}</code>. Nothing is sent to the device until you decide: accept the key if the device was set up anew, else find out who uses its name.</p>
        ${may && html`<p class="row"><button type="button" onClick=${after(askAccept)}>Accept the other key…</button></p>`}
      </section>`}
      <section class="card"><h2>Facts</h2><dl class="facts">
        <dt>Fingerprint</dt><dd><${Print} value=${device.fingerprint} /></dd>
        ${device.kid && html`<dt>Key id</dt><dd><code>${device.kid}</code></dd>`}
        <dt>Key pinned</dt><dd><${Instant} at=${device.pinned_at} />${device.awaits_claim && html` <span class="quiet">a bundle waits for its first contact</span>`}</dd>
        <dt>Keys it obeys</dt><dd><${Obeys} client=${client} keys=${keys.data} /></dd>
        <dt>Account</dt><dd>${device.has_account ? "made here, at the broker" : "made elsewhere"}</dd>
        <dt>Enrolled</dt><dd><${Instant} at=${device.created_at} /> by ${device.created_by}</dd>
        ${over && html`<dt>Revoked</dt><dd><${Instant} at=${device.revoked_at} /> by ${device.revoked_by || "–"}</dd>`}
        ${device.note && html`<dt>Note</dt><dd>${device.note}</dd>`}
        ${client && html`<dt>Client</dt><dd><${Link} to=${path("clients", id)}>What it does<//></dd>`}
        <${RecordsLink} target=${`device:${id}`} />
      </dl></section>
      ${may && html`<section class="card stack"><h2>${over ? "Enrol it again" : "Give it a new bundle"}</h2>
        <p>A new password and a new claim; ${over ? "its revoked key stays refused" : "the former password is refused at once"}.</p>
        <${Copyable} label="On the command line: the file holds secrets" text=${backhaul("device rotate", { "--out": "bundle.json" }, id)} />
      </section>`}
    </div>
  <//>`;
}

function Obeys({ client, keys }) {
  if (!client || client.state === "never_seen") return html`<span class="quiet">not known: it has not connected yet</span>`;
  if (client.keys_version === null) return "none: it obeys unsigned commands";
  return html`<${Obeyed} version=${client.keys_version} keys=${keys} />`;
}

function askRevoke(at, device) {
  askWhy();
  return confirm({
    title: `Revoke ${device.client_id}`,
    act: "Revoke the device",
    danger: true,
    text: html`<div class="stack"><p>Nothing of it is taken any more, its uploads end, its account is removed, and its key is refused under every name. A URL that it already has stays valid for up to five minutes.</p><${Why} placeholder="the device was stolen" /></div>`,
    run: async () => {
      await send("POST", `${at}/revoke`, null, whyHeader());
      toast("The device is revoked");
    },
  });
}

function askAccept(at, device) {
  askWhy();
  return confirm({
    title: `Accept the other key of ${device.client_id}`,
    act: "It shows this: accept",
    danger: true,
    text: html`<div class="stack"><p>The device must show:<br /><strong><code>${device.other_fingerprint}</code></strong></p><p>The former key, <code>${device.fingerprint}</code>, is refused from then on, under every name.</p><${Why} placeholder="its disk was replaced" /></div>`,
    run: async () => {
      await send("POST", `${at}/accept-key`, { fingerprint: device.other_fingerprint }, whyHeader());
      toast("The key is accepted");
    },
  });
}

async function askForget(at, device) {
  if (await confirm({ title: `Forget ${device.client_id}`, act: "Forget the device", danger: true, text: "It goes from the registry; its key stays refused.", run: () => send("DELETE", at) })) navigate("/devices");
}
