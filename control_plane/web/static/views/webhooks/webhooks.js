// Every webhook: where changes are sent, whether they arrive, and what waits.
import { html, useState } from "../../core/html.js";
import { send } from "../../core/api.js";
import { count } from "../../core/format.js";
import { useResource } from "../../core/resource.js";
import { href, Link, path } from "../../core/router.js";
import { Copyable } from "../../parts/copy.js";
import { Empty } from "../../parts/empty.js";
import { Field } from "../../parts/fields.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { State } from "../../parts/state.js";
import { DataTable } from "../../parts/table.js";
import { filled, wordsOf } from "../new/texts.js";

export default function Webhooks() {
  // What waits changes with each change of the log.
  const { data, problem, loading, reload } = useResource("/webhooks", null, {}, { every: 2 });
  const [adding, setAdding] = useState(false);
  const [made, setMade] = useState(null);
  const after = (webhook) => (setMade(webhook), setAdding(false), reload());
  return html`<${Page} title="Webhooks" subtitle="Changes, sent to a URL as signed messages" request=${{ path: "/webhooks" }} command="backhaul webhook list"
    actions=${html`<button type="button" class="primary" aria-expanded=${adding ? "true" : "false"} onClick=${() => setAdding(!adding)}>New webhook</button>`}>
    <div class="stack">
      ${made && html`<${Secret} webhook=${made} onClose=${() => setMade(null)} />`}
      ${adding && html`<${Add} onMade=${after} onClose=${() => setAdding(false)} />`}
      <${ProblemBox} problem=${problem} onRetry=${reload} />
      ${!(problem && !data) && html`<${DataTable} label="Webhooks" columns=${COLUMNS} rows=${data && data.webhooks} keyOf=${(row) => row.webhook_id} loading=${loading}
        empty=${adding || made ? html`<p class="quiet">There are none yet.</p>` : html`<${Empty} title="There are no webhooks yet" text="A webhook gets each change as it happens: an upload that ended, a job that is over, a client that is gone."><button type="button" class="primary" onClick=${() => setAdding(true)}>Add the first webhook</button><//>`} />`}
    </div>
  <//>`;
}

// The secret is in no later answer.
function Secret({ webhook, onClose }) {
  return html`<section class="card stack secret" role="status" aria-label="The secret of the new webhook">
    <h2>The secret of this webhook: shown now, and never again</h2>
    <${Copyable} label="It verifies the messages (Standard Webhooks)" text=${webhook.secret} />
    <div class="row"><a class="button" href=${href(path("webhooks", webhook.webhook_id))}>Open the webhook</a><button type="button" onClick=${onClose}>I have stored it</button></div>
  </section>`;
}

function Add({ onMade, onClose }) {
  const [form, setForm] = useState({ url: "", types: "", selector: "" });
  const [problem, setProblem] = useState(null);
  const bind = (name) => ({ value: form[name], onInput: (text) => setForm({ ...form, [name]: text }) });
  const submit = async (event) => {
    event.preventDefault();
    setProblem(null);
    try {
      onMade((await send("POST", "/webhooks", filled({ url: form.url.trim(), types: wordsOf(form.types), selector: form.selector.trim() }))).body);
    } catch (error) {
      setProblem(error);
    }
  };
  return html`<form class="card stack" onSubmit=${submit} aria-label="New webhook">
    <div class="form">
      <${Field} label="URL" wide ...${bind("url")} placeholder="https://hooks.example.com/backhaul" required hint="https, on the public internet; WEBHOOK_NETWORKS of the server allows others" />
      <${Field} label="Types" ...${bind("types")} placeholder="upload.state_changed job.*" hint="Every change when empty" />
      <${Field} label="Selector" ...${bind("selector")} placeholder="site=berlin" hint="Of these clients only" />
    </div>
    <${ProblemBox} problem=${problem} />
    <div class="row"><button class="primary" disabled=${!form.url.trim()}>Create</button><button type="button" onClick=${onClose}>Close</button></div>
  </form>`;
}

const COLUMNS = [
  { title: "URL", wide: true, value: (row) => html`<${Link} to=${path("webhooks", row.webhook_id)}>${row.url}<//>` },
  { title: "State", value: (row) => html`<${State} value=${row.enabled ? "enabled" : "disabled"} />${row.note && html` <span class="quiet">${row.note}</span>`}` },
  { title: "Types", value: (row) => (row.types.length ? row.types.map((one) => html`<span class="tag" key=${one}>${one}</span>`) : html`<span class="quiet">every change</span>`) },
  { title: "Selector", value: (row) => (row.selector ? html`<code>${row.selector}</code>` : html`<span class="quiet">every client</span>`) },
  { title: "Waiting", end: true, value: (row) => (row.waiting >= 1000 ? "1,000 or more" : count(row.waiting)) },
];
