// The fields of the form, in the groups in which a person thinks of them.
// Rule: what is usually left alone is folded away; every field names its unit.
import { html, useRef } from "../../core/html.js";
import { localZone } from "../../core/zone.js";
import { Check, Field, Select } from "../../parts/fields.js";
import { objectionTo } from "./recipients.js";
import { ClientField, Known, Many, PathField, SelectorField } from "./suggest.js";

// Builds the field of one member: its value, its change, and the server's objection to it.
export function fieldsOf(form, set, objection) {
  const bind = (name) => ({ value: form[name], onInput: (value) => set({ [name]: value }), problem: objection(name) });
  return {
    bind,
    text: (name, label, hint, more) => html`<${Field} label=${label} hint=${hint} ...${bind(name)} ...${more} />`,
    choice: (name, label, options, hint) => html`<${Select} label=${label} options=${options} hint=${hint} value=${form[name]} onChange=${(value) => set({ [name]: value })} />`,
  };
}

const AFTER = [{ value: "keep", label: "stays" }, { value: "delete", label: "is deleted" }, { value: "move", label: "is moved" }];

// What becomes of the file on the device; the device must allow it.
function After({ fields, form }) {
  const { text, choice } = fields;
  return html`${choice("after", "Once proven, the file on the device", AFTER, form.after === "keep" ? "" : "Only where ALLOW_AFTER of the device allows it, and the file did not change")}
    ${form.after === "move" && text("after_folder", "Moved into the folder", "An absolute path on the same file system", { placeholder: "/data/done" })}`;
}

// The device seals the files for these recipients while it sends them.
function Seal({ fields, form, set, client }) {
  const { value, problem } = fields.bind("encrypt_to");
  const unable = client && value.length > 0 && client.state !== "never_seen" && !client.capabilities.includes("sealed");
  // It opens by itself where there are recipients, and does not close under the hand that removes the last one.
  const opened = useRef(false);
  opened.current = opened.current || value.length > 0;
  return html`<details open=${opened.current}><summary>Seal for recipients</summary><div class="form">
    <${Many} label="Recipients" noun="recipient" values=${value} onChange=${(encrypt_to) => set({ encrypt_to })} Input=${Field} placeholder="age1…" problem=${objectionTo(form) || problem}
      hint=${html`As <code>age-keygen -y</code> prints them; Enter adds one. Only their identities open the object: <a href="/help/how-to/seal-files">how</a>`} />
    ${unable && html`<p class="banner wait">The agent of ${client.client_id} can seal no files: install PyNaCl there.</p>`}
  </div></details>`;
}

export function TriggerGroup({ fields, form, set, client }) {
  const { bind, text, choice } = fields;
  const state = client && (client.connected ? "It is connected." : `It is ${client.state === "never_seen" ? "not seen yet" : "offline"}: the upload waits until it connects.`);
  return html`<fieldset><legend>What to fetch</legend><div class="form">
      <${ClientField} label="Client" ...${bind("client")} required hint=${state || "The id of one client"} />
      <${PathField} label="File" client=${client} ...${bind("path")} hint=${client && client.default_file ? `Empty: ${client.default_file}` : "An absolute path below a folder that the device allows"} />
      <${After} fields=${fields} form=${form} />
    </div></fieldset>
    <${Seal} fields=${fields} form=${form} set=${set} client=${client} />
    <details><summary>More</summary><div class="form">
      ${text("deadline", "Give up after", "36h, or an instant; the server's limit when empty", { placeholder: "24h" })}
      ${choice("on_change", "If the file changes meanwhile", [{ value: "fail", label: "fail" }, { value: "prefix", label: "send what was there" }])}
      ${choice("compression", "Compression", ["none", "gzip"])}
      ${text("priority", "Priority", "-1000 to 1000")}
    </div></details>`;
}

export function TargetsGroup({ fields, form, set, fleet }) {
  return html`<fieldset><legend>Clients</legend><div class="form">
    <${SelectorField} label="Selector" labels=${fleet.labels} ...${fields.bind("selector")} placeholder="site=berlin,!retired" hint="Labels, as in kubectl; a comma means and" />
    <${Many} label="Clients, patterns and groups" noun="client" values=${form.clients} onChange=${(clients) => set({ clients })} Input=${ClientField} more=${fleet.groups} problem=${fields.bind("clients").problem} placeholder="till-1, till-*, group:beta" hint="Enter adds one; both together are the union" />
    <${Check} label="Clients that match later join, too" checked=${form.mode === "continuous"} onChange=${(on) => set({ mode: on ? "continuous" : "snapshot" })} />
  </div></fieldset>`;
}

export function FilesGroup({ fields, form, set, client, tick }) {
  const { bind, text, choice } = fields;
  return html`<fieldset><legend>Files</legend><div class="form">
      <${Many} label="Paths" noun="path" values=${form.paths} onChange=${(paths) => set({ paths })} Input=${PathField} client=${client} problem=${bind("paths").problem} placeholder=${tick ? "/data/sales-{tick-1d:%Y%m%d}.csv" : "/data/*.csv"} hint=${client ? `Below ${client.roots.join(", ") || "the roots of the device"}; * and ** are globs; Enter adds one` : "Absolute globs; ** crosses folders; Enter adds one"} />
      <${Known} label="Or a file type" words=${client ? client.types : []} ...${bind("type")} hint="A name that the devices' configuration maps to paths" />
    </div>
    <details><summary>Which of them</summary><div class="form">
      ${text("newer_than", "Newer than", "24h", { placeholder: "24h" })}${text("older_than", "Older than", "10m")}
      ${text("min_size", "At least", "Bytes, or 1KiB")}${text("max_size", "At most", "Bytes, or 50MiB")}
      ${choice("pick", "Take first the", ["newest", "oldest", "largest", "smallest", { value: "path", label: "first by path" }])}
      ${text("max_files", "Maximum files of a client", "1,000 when empty")}${text("max_bytes", "Maximum bytes of a client", "200MiB")}
      ${text("min_files", "Minimum files of a client", "Fewer: the client has failed (no_match)")}
      ${choice("skip", "Files that were proven before", [{ value: "none", label: "send again" }, { value: "unchanged", label: "skip while unchanged" }])}
      ${text("exclude", "Exclude", "Globs, one a line", { type: "textarea", wide: true, placeholder: "**/debug.log" })}
    </div></details></fieldset>`;
}

export function RolloutGroup({ fields, form, set, client }) {
  const { text, choice } = fields;
  return html`<fieldset><legend>How</legend><div class="form">
      ${text("deadline", "Deadline", "7d when empty", { placeholder: "36h" })}
      ${choice("approval", "Approval", [{ value: "never", label: "send at once" }, { value: "always", label: "ask before anything is sent" }, { value: "limits", label: "ask above limits" }])}
      ${form.approval === "limits" && html`${text("bytes_over", "Ask above bytes", "50GiB")}${text("clients_over", "Ask above clients", "100")}`}
      ${text("per_minute", "Executions a minute", "A number, or 1/20m; no limit when empty")}
      ${text("max_running", "Most at a time", "No limit when empty")}
      <${After} fields=${fields} form=${form} />
    </div>
    <${Seal} fields=${fields} form=${form} set=${set} client=${client} />
    <details><summary>Retries, windows, names</summary><div class="form">
      ${text("retry_failed", "Repeat failed clients", "Times, up to 10")}${text("retry_timed_out", "Repeat clients that timed out", "Times, up to 10")}
      ${choice("abort_on", "Abort when too many clients are", [{ value: "", label: "never" }, "failed", "timed_out", "partial", "rejected", "skipped", "all"])}
      ${form.abort_on && html`${text("abort_percent", "Abort at percent", "Of those that ended")}${text("abort_min", "Not before this number ended")}`}
      ${text("priority", "Priority", "-100 to 100")}
      ${choice("on_change", "If a file changes meanwhile", [{ value: "fail", label: "fail" }, { value: "prefix", label: "send what was there" }])}
      ${choice("compression", "Compression", ["none", "gzip"])}
      ${text("reason", "Requested for", "Kept with the job")}
      ${text("key", "Key of the objects", "{job}/{client_id}/{path} when empty", { wide: true })}
      ${text("windows", "Windows", "When bytes may leave a device, one a line: 0 1 * * * for 3h", { type: "textarea", wide: true })}
    </div></details></fieldset>`;
}

export function ScheduleGroup({ fields, form, set }) {
  const { text, choice } = fields;
  return html`<fieldset><legend>When</legend><div class="form">
      ${text("schedule_id", "Name", "Up to 34 of A-Z a-z 0-9 . _ -", { placeholder: "daily-sales" })}
      ${choice("cadence", "Ticks", [{ value: "cron", label: "by a cron expression" }, { value: "every", label: "at an interval" }])}
      ${form.cadence === "cron" ? text("cron", "Cron", "minute hour day month weekday", { placeholder: "0 3 * * *" }) : text("every", "Every", "6h, 30m; at least a minute", { placeholder: "6h" })}
      <${Known} label="Zone" words=${zones()} ...${fields.bind("zone")} placeholder="UTC" hint=${form.zone === localZone ? "The zone of this browser" : "UTC when empty"} />
    </div>
    <details><summary>Overlap, missed ticks, jitter</summary><div class="form">
      ${choice("overlap", "While a job of it runs", [{ value: "", label: "as usual" }, "skip", { value: "queue_one", label: "queue one" }, { value: "cancel_running", label: "cancel that one" }, "allow"], "Usual: allow if the job uses {tick}, else skip")}
      ${choice("catch_runs", "Make up for missed ticks", [{ value: "", label: "as usual" }, "all", "latest", "none"], "Usual: all if the job uses {tick}, else the latest")}
      ${text("catch_within", "Not older than", "7d when empty")}
      ${text("jitter", "Jitter", "Each tick begins later by the same part of it: 10m")}
      ${text("pause_after", "Pause after failures in a row", "Never when empty")}
    </div></details></fieldset>`;
}

const zones = () => (Intl.supportedValuesOf ? Intl.supportedValuesOf("timeZone").filter((one) => one.includes("/") || one === "UTC") : []);
