// Acts on many clients: those that are ticked, or all that match the filter.
// Rule: a filter goes to the server with the count and the set that were shown; the ids of a filter never leave from here.
import { html, signal } from "../../core/html.js";
import { send } from "../../core/api.js";
import { href, Link, path, setQuery } from "../../core/router.js";
import { count as shown, plural } from "../../core/format.js";
import { Field } from "../../parts/fields.js";
import { Bulk } from "../../parts/bulk.js";
import { toast } from "../../parts/toast.js";

const file = signal("");
const label = signal("");

// `where` is the filter as REST takes it, `selected` the ids that are ticked.
export function ActOnClients({ where, filtered, count, set, selected, onClear, onDone }) {
  if (!count) return null;
  if (selected.size) {
    const ids = [...selected].sort();
    return html`<div class="bulk-line"><${Bulk} verb="selected" count=${ids.length} set=${null} acts=${actsOn({ clients: ids }, { clients: ids }, onDone)} /><button type="button" class="link" onClick=${onClear}>Clear the selection</button></div>`;
  }
  if (!filtered) return html`<p class="bulk-line quiet">${plural(count, "client")}. <button type="button" class="link" onClick=${() => setQuery({ id: "*" })}>Act on all of them</button></p>`;
  return html`<${Bulk} count=${count} set=${set} onStale=${onDone} acts=${actsOn(where, targetsOf(where), onDone)} />`;
}

// The same clients as the targets of a job; null where a job cannot name them: it knows ids and labels, and no state.
function targetsOf({ id, selector, state }) {
  if (state || (id && selector)) return null;
  return id ? { clients: [id] } : { selector };
}

function actsOn(where, targets, onDone) {
  const shownSet = ({ count, set }) => (set === null ? {} : { count, set });
  return [
    {
      label: "Request a file",
      title: "Request a file of these clients",
      disabled: targets ? "" : "A job selects clients by labels or by ids: remove the other filter",
      text: html`<${FileFields} />`,
      run: async (given) => {
        const paths = file.value.split("\n").map((one) => one.trim()).filter(Boolean);
        const query = given.set === null ? "" : `?count=${given.count}&set=${given.set}`;
        const { body } = await send("POST", `/jobs${query}`, { targets, files: { paths } });
        toast(`Job ${body.job_id} requests it of ${plural(body.clients, "client")}`, { to: href(path("jobs", body.job_id)) });
        onDone();
      },
    },
    {
      label: "Set a label",
      title: "Set a label on these clients",
      text: html`<${LabelFields} />`,
      run: async (given) => {
        const { body } = await send("PATCH", "/clients/labels", { where: { ...where, ...shownSet(given) }, labels: labelsOf(label.value) });
        toast(`${shown(body.changed)} of ${plural(body.clients, "client")} changed`);
        onDone();
      },
    },
    {
      label: "Cancel uploads",
      title: "Cancel the unfinished uploads of these clients",
      danger: true,
      text: "What was stored of them is removed. A job that requested them may request them again.",
      run: async (given) => {
        const { body } = await send("POST", "/uploads/cancel", { where: { ...where, ...shownSet(given) } });
        const rest = body.more ? "; there are more, do it again" : body.refused ? `; ${shown(body.refused)} were over or about to be` : "";
        toast(`${plural(body.cancelled, "upload")} cancelled${rest}`);
        onDone();
      },
    },
  ];
}

function FileFields() {
  return html`<${Field} type="textarea" label="Paths or patterns on the devices, one a line" value=${file.value} onInput=${(text) => (file.value = text)} placeholder="/var/log/app/*.log" required hint=${html`One job for all of them. For limits, windows and a schedule: <${Link} to="/new/job">the form for jobs<//>.`} />`;
}

function LabelFields() {
  return html`<${Field} label="Label" value=${label.value} onInput=${(text) => (label.value = text)} placeholder="ring=beta" required hint="name=value; a name alone takes the label off" />`;
}

// {name: value}, or {name: null} to take it off.
function labelsOf(text) {
  const [name, ...value] = text.trim().split("=");
  return { [name.trim()]: value.length ? value.join("=").trim() : null };
}
