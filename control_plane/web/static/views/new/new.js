// One form for a trigger, a job and a schedule: what it will send is shown as it is typed, and checked before it is made.
// Rule: nothing is made before the dry run of exactly this body has shown how many clients match.
import { html, useEffect, useMemo, useRef, useState } from "../../core/html.js";
import { get, pathWith, send } from "../../core/api.js";
import { bytes, plural } from "../../core/format.js";
import { Link, navigate, path } from "../../core/router.js";
import { localZone } from "../../core/zone.js";
import { backhaul, quoted } from "../../parts/copy.js";
import { confirm, TYPED_BEYOND } from "../../parts/dialog.js";
import { Json } from "../../parts/json.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { toast } from "../../parts/toast.js";
import { TickList } from "../schedules/schedule.js";
import { EMPTY, formOfJob, formOfSchedule, isComplete, jobBody, scheduleBody, triggerBody } from "./bodies.js";
import { FilesGroup, RolloutGroup, ScheduleGroup, TargetsGroup, TriggerGroup, fieldsOf } from "./groups.js";
import { useClient, useFleetWords } from "./suggest.js";

const KINDS = { trigger: "upload", job: "job", schedule: "schedule" };
// The members of a refusal's sentence that have a field of another name.
const MEMBER = { "targets.clients": "clients", "targets.selector": "selector", "files.paths": "paths", "files.type": "type", file_path: "path", "catch_up.within": "catch_within", pause_after_failures: "pause_after" };

// Another link to the form begins it anew, also while it is open.
export default function New({ params, query }) {
  return html`<${Form} key=${JSON.stringify([params.kind, query])} params=${params} query=${query} />`;
}

function Form({ params, query }) {
  const kind = KINDS[params.kind] ? params.kind : "job";
  const [form, setForm] = useState(() => begun(kind, query));
  const set = (patch) => setForm((old) => ({ ...old, ...patch }));
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    if (!query.from) return;
    const one = kind === "schedule" ? get(path("schedules", query.from)).then(formOfSchedule) : get(path("jobs", query.from)).then((job) => formOfJob(job.spec));
    one.then(setForm, setProblem);
  }, [query.from]);
  const body = kind === "trigger" ? triggerBody(form) : kind === "job" ? jobBody(form) : scheduleBody(form);
  const at = kind === "trigger" ? path("trigger-download", form.client.trim() || "CLIENT") : kind === "job" ? "/jobs" : "/schedules";
  const complete = isComplete(kind, form);
  const { check, run } = useCheck(kind, at, body, complete);
  const busy = useRef(false);
  useEffect(() => void run({ quietly: true }), [complete]);
  const fleet = useFleetWords();
  const example = kind === "trigger" ? form.client.trim() : form.clients.find((one) => !one.includes("*") && !one.includes(":")) || (check && check.found && check.found.first[0]) || "";
  const client = useClient(example);
  const refusal = problem || (check && check.problem);
  const objection = useMemo(() => objections(refusal), [refusal]);
  const fields = fieldsOf(form, set, objection);

  const make = async () => {
    setProblem(null);
    try {
      const answer = await send("POST", at, body);
      arrive(kind, answer.body, form.client.trim());
    } catch (error) {
      setProblem(error);
      if (kind !== "trigger") throw error;
    }
  };
  const submit = async (event) => {
    event.preventDefault();
    if (busy.current || !complete) return;
    busy.current = true;
    try {
      const lost = form.after === "keep" ? "" : `Once its object is proven, each file ${form.after === "delete" ? "is deleted on its device" : `is moved into ${form.after_folder.trim()} on its device`}.`;
      if (kind === "trigger" && lost) await confirm({ title: "Request the upload", act: "Request the upload", danger: true, text: lost, run: make });
      else if (kind === "trigger") await make();
      else {
        const seen = check && check.found && !check.stale;
        const found = seen ? check.found : await run();
        if (!found) return;
        // A person who has just seen the number, and it is small, is not asked again.
        if (seen && !lost && found.clients <= TYPED_BEYOND) await make().catch(() => {});
        else await confirm({ title: `Create the ${kind}`, act: `Create the ${kind}`, danger: Boolean(lost), count: found.clients, text: html`${lost && html`<p><strong>${lost}</strong></p>`}<${Found} kind=${kind} found=${found} />`, run: make });
      }
    } finally {
      busy.current = false;
    }
  };
  return html`<${Page} title=${`New ${KINDS[kind]}`} subtitle=${SUBTITLES[kind]} request=${{ method: "POST", path: at, body }} command=${commandOf(kind, form, body)}>
    <nav class="tabs" aria-label="What to make">${Object.entries(KINDS).map(([one, noun]) => html`<${Link} key=${one} to=${`/new/${one}`} query=${kept(query)} aria-current=${one === kind ? "page" : undefined} class=${one === kind ? "here" : undefined}>${noun[0].toUpperCase() + noun.slice(1)}<//>`)}</nav>
    <form class="new" onSubmit=${submit} onFocusOut=${() => void setTimeout(() => run({ quietly: true }))}>
      <div class="stack">
        ${kind === "trigger" && html`<${TriggerGroup} fields=${fields} form=${form} set=${set} client=${client} />`}
        ${kind === "schedule" && html`<${ScheduleGroup} fields=${fields} form=${form} set=${set} />`}
        ${kind === "job" && html`<fieldset><legend>Name</legend><div class="form">${fields.text("job_id", "Job id", "Generated when empty; the same id with the same body is the same job", { placeholder: "sales-november" })}</div></fieldset>`}
        ${kind !== "trigger" && html`<${TargetsGroup} fields=${fields} form=${form} set=${set} fleet=${fleet} />
          <${FilesGroup} fields=${fields} form=${form} set=${set} client=${client} tick=${kind === "schedule"} />
          <${RolloutGroup} fields=${fields} form=${form} set=${set} client=${client} />`}
      </div>
      <aside class="stack" aria-label="What will be sent">
        <section class="card stack check" aria-live="polite">
          ${kind === "trigger" ? null : html`<${CheckResult} kind=${kind} check=${check} complete=${complete} />`}
          <${ProblemBox} problem=${refusal} />
          <div class="row">
            <button class="primary" disabled=${!complete}>${kind === "trigger" ? "Request the upload" : `Create the ${kind}`}</button>
            ${kind !== "trigger" && html`<button type="button" disabled=${!complete} onClick=${() => run()}>Dry run</button>`}
          </div>
        </section>
        <section class="card"><h2>What will be sent</h2><p class="quiet"><code>POST ${at}</code></p><${Json} value=${body} label="The request as JSON" /></section>
      </aside>
    </form>
  <//>`;
}

const SUBTITLES = {
  trigger: "One file of one client",
  job: "Files of many clients; a dry run shows what matches before anything is made",
  schedule: "A job at each tick; the next ticks are shown before it is made",
};

const kept = ({ client, selector }) => ({ client, selector });

function begun(kind, query) {
  const clients = [].concat(query.client ?? []).filter(Boolean);
  return { ...EMPTY, client: clients[0] || "", path: query.path || "", clients, selector: query.selector || "", paths: query.path ? [query.path] : [], zone: kind === "schedule" ? localZone : "" };
}

// The dry run of the body: {found, problem, stale, running}. `run` answers what was found, or null.
function useCheck(kind, at, body, complete) {
  const key = JSON.stringify(body);
  const [state, setState] = useState(null);
  const asked = useRef("");
  const run = async ({ quietly = false } = {}) => {
    if (kind === "trigger" || !complete || (quietly && asked.current === key)) return null;
    asked.current = key;
    setState((old) => ({ ...old, running: true }));
    try {
      const { body: found } = await send("POST", pathWith(at, { dry_run: true }), body);
      if (asked.current === key) setState({ key, found, problem: null });
      return found;
    } catch (problem) {
      if (asked.current === key) setState({ key, found: null, problem });
      return null;
    }
  };
  return { check: state && { ...state, stale: state.key !== key }, run };
}

// "files.paths: '/x' is outside…" stands below the field it is about.
function objections(problem) {
  const [place = "", ...rest] = problem && problem.status === 422 ? problem.detail.split(": ") : [];
  const member = place.replace(/^(job|rollout)\./, "");
  const step = Object.keys(MEMBER).find((one) => member === one || member.startsWith(`${one}.`));
  const name = step ? MEMBER[step] : member.split(".").filter((one) => !/^\d+$/.test(one)).pop();
  return (field) => (rest.length && field === name ? rest.join(": ") : "");
}

function CheckResult({ kind, check, complete }) {
  if (!complete) return html`<p class="quiet">Name clients and files: a dry run then shows how many match.</p>`;
  if (!check || (!check.found && !check.problem)) return html`<p class="quiet">${check && check.running ? "Checking…" : "Not checked yet."}</p>`;
  if (!check.found) return null;
  return html`<div>${check.stale && html`<p class="quiet">Of the form before the last change:</p>`}<${Found} kind=${kind} found=${check.found} /></div>`;
}

// What a dry run found.
function Found({ kind, found }) {
  const more = found.clients - found.first.length;
  return html`<div class="stack"><p class="match"><strong>${plural(found.clients, "client")}</strong> ${found.clients === 1 ? "matches" : "match"}${kind === "schedule" ? " now" : ""}</p>
    ${found.first.length > 0 && html`<p class="quiet">${found.first.join(", ")}${more > 0 ? `, and ${more} more` : ""}</p>`}
    ${found.warnings.length > 0 && html`<ul class="warnings">${found.warnings.map((one) => html`<li key=${one}>${one}</li>`)}</ul>`}
    ${found.forecast && html`<${Forecast} forecast=${found.forecast} />`}
    ${found.ticks && html`<h3>Next ticks</h3><${TickList} ticks=${found.ticks.slice(0, 6)} />`}</div>`;
}

// What is expected of the devices with caps of their own.
function Forecast({ forecast }) {
  const known = forecast.limited - forecast.unknown;
  return html`<div class="stack"><p class="quiet">${plural(forecast.limited, "client")} ${forecast.limited === 1 ? "has a cap" : "have caps"} of ${forecast.limited === 1 ? "its" : "their"} own; ${known ? `${bytes(forecast.bytes)} are expected of ${known === forecast.limited ? "them" : known}` : "how much they would send is not known"}.</p>
    ${forecast.crossings.length > 0 && html`<ul class="warnings">${forecast.crossings.map((one) => html`<li key=${one.date + one.period}>${plural(one.clients, "client")} would pass the cap of a ${one.period.replace("_", " ")} on ${one.date}: ${one.first.join(", ")}${one.clients > one.first.length ? "…" : ""}</li>`)}</ul>`}</div>`;
}

function arrive(kind, made, clientId) {
  toast(kind === "trigger" ? "The upload is requested" : `The ${kind} is made`);
  if (kind === "trigger") navigate(path("uploads", made.upload_id), { client_id: clientId });
  else navigate(kind === "job" ? path("jobs", made.job_id) : path("schedules", made.schedule_id));
}

// The members of a trigger's body as options of the command.
function optionsOf({ after, deadline, options: { encrypt_to: recipients = [], ...options } = {} }) {
  return { "--after": after, "--deadline": deadline, "--option": Object.entries(options).map(([name, value]) => `${name}=${value}`), "--encrypt-to": recipients };
}

function commandOf(kind, form, body) {
  if (kind === "trigger") return backhaul("trigger", optionsOf(body), ...[form.client.trim() || "CLIENT", form.path.trim()].filter(Boolean));
  return `printf %s ${quoted(JSON.stringify(body))} | ${kind === "job" ? backhaul("job create", { "-f": "-" }) : backhaul("schedule create", { "-f": "-" })}`;
}
