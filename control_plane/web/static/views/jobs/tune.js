// Retuning a job that runs: only what a person changed is sent, with the version that the form began with.
// Rule: after a 412 the form shows what others changed meanwhile; what the person typed stays.
import { html, useState } from "../../core/html.js";
import { get, send } from "../../core/api.js";
import { Field } from "../../parts/fields.js";
import { ProblemBox } from "../../parts/problem.js";
import { toast } from "../../parts/toast.js";
import { textOfWindows, windowsOf } from "../new/texts.js";
import { jobPath, tag } from "./model.js";

const TITLES = { per_minute: "Executions a minute", max_running: "Most at a time", priority: "Priority", windows: "Windows", deadline: "Deadline" };

// What the form edits, as texts.
function textsOf(job) {
  const { rollout, priority, windows } = job.spec;
  return { per_minute: String(rollout.per_minute ?? ""), max_running: String(rollout.max_running ?? ""), priority: String(priority), windows: textOfWindows(windows), deadline: job.deadline || "" };
}

const number = (text) => (/^-?\d+$/.test(text) ? Number(text) : text);

// The body of the PATCH: null removes a limit.
function patchOf(base, now) {
  const changed = Object.keys(TITLES).filter((name) => now[name].trim() !== base[name]);
  const body = {};
  for (const name of changed) {
    const text = now[name].trim();
    if (name === "per_minute" || name === "max_running") (body.rollout = body.rollout || {})[name] = text ? number(text) : null;
    else if (name === "windows") body.windows = windowsOf(text);
    else if (name === "priority") body.priority = number(text || "0");
    else if (text) body.deadline = text;
  }
  return body;
}

export function Tune({ job, onDone }) {
  const [base, setBase] = useState(() => ({ version: job.version, texts: textsOf(job) }));
  const [now, setNow] = useState(base.texts);
  const [problem, setProblem] = useState(null);
  const [theirs, setTheirs] = useState(null);
  const [busy, setBusy] = useState(false);
  const body = patchOf(base.texts, now);
  const field = (name, hint) => html`<${Field} label=${TITLES[name]} value=${now[name]} onInput=${(text) => setNow({ ...now, [name]: text })} hint=${hint} problem=${problem && problem.detail.startsWith(`${name === "per_minute" || name === "max_running" ? `rollout.${name}` : name}`) ? problem.detail : ""} ...${name === "windows" ? { type: "textarea", wide: true } : {}} />`;
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await send("PATCH", jobPath(job.job_id), body, tag(base.version));
      toast("The job is retuned; this takes effect with the next grant");
      onDone();
    } catch (error) {
      if (error.status === 412) {
        const newest = await get(jobPath(job.job_id)).catch(() => null);
        if (newest) {
          const texts = textsOf(newest);
          setTheirs({ from: base.texts, version: newest.version, texts });
          setBase({ version: newest.version, texts });
          // What the person did not touch follows the newest version.
          setNow(Object.fromEntries(Object.keys(TITLES).map((name) => [name, now[name].trim() === base.texts[name] ? texts[name] : now[name]])));
        } else setProblem(error);
      } else setProblem(error);
    }
    setBusy(false);
  };
  const differs = theirs ? Object.keys(TITLES).filter((name) => theirs.from[name] !== theirs.texts[name]) : [];
  return html`<form class="card stack" onSubmit=${submit} aria-label="Retune the job">
    <h2>Retune</h2>
    ${theirs && html`<div class="problem" role="alert"><strong>Another person changed this job meanwhile (version ${theirs.version})</strong>
      ${differs.length ? html`<ul>${differs.map((name) => html`<li key=${name}>${TITLES[name]}: <code>${theirs.from[name] || "none"}</code> became <code>${theirs.texts[name] || "none"}</code></li>`)}</ul>` : html`<p>None of the values below is different.</p>`}
      <p>Nothing was sent. What you typed is still here: send it again to replace their values.</p></div>`}
    <div class="form">
      ${field("per_minute", "A number a minute, or 1/20m; empty: no limit")}
      ${field("max_running", "Empty: no limit")}
      ${field("priority", "-100 to 100")}
      ${field("deadline", "36h from now, or an instant")}
      ${field("windows", "One a line: 0 1 * * * for 3h")}
    </div>
    <${ProblemBox} problem=${problem} />
    <div class="row"><button class="primary" disabled=${busy || !Object.keys(body).length}>Send the changes</button>
      <button type="button" onClick=${onDone}>Close</button>
      ${Object.keys(body).length > 0 && html`<code class="quiet">PATCH ${JSON.stringify(body)}</code>`}</div>
  </form>`;
}
