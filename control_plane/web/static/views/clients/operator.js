// The labels of a client: those that the device reports, and those that an operator set, which win.
import { html, useState } from "../../core/html.js";
import { send } from "../../core/api.js";
import { path } from "../../core/router.js";
import { Field } from "../../parts/fields.js";
import { ProblemBox } from "../../parts/problem.js";
import { Labels } from "./labels.js";

export function OperatorLabels({ client, onDone }) {
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(null);
  const change = async (labels) => {
    setBusy(true);
    setProblem(null);
    try {
      await send("PATCH", `${path("clients", client.client_id)}/labels`, labels);
      setText("");
      onDone();
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  const add = (event) => {
    event.preventDefault();
    const [name, ...value] = text.split("=");
    change({ [name.trim()]: value.join("=").trim() });
  };
  const set = Object.entries(client.set_labels);
  return html`<section class="card"><h2>Labels</h2>
    <dl class="facts">
      <dt>From the device</dt><dd><${Labels} labels=${client.device_labels} /></dd>
      <dt>Set by an operator</dt>
      <dd>${set.length === 0 && html`<span class="quiet">none</span>`}
        <ul class="labels">${set.map(([name, value]) => html`<li key=${name}>
          <code>${name}=${value}</code>${name in client.device_labels && html` <small>in place of ${client.device_labels[name]}</small>`}
          <button type="button" class="link" disabled=${busy} aria-label=${`Remove ${name}`} onClick=${() => change({ [name]: null })}>Remove</button>
        </li>`)}</ul>
      </dd>
    </dl>
    <form class="row inline" onSubmit=${add}>
      <${Field} label="Set a label" value=${text} onInput=${setText} placeholder="site=berlin" pattern="[^=]+=.*" title="name=value" required />
      <button disabled=${busy || !text.includes("=")}>Set</button>
    </form>
    <${ProblemBox} problem=${problem} />
  </section>`;
}
