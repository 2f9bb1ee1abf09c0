// One webhook: what it gets, each delivery with its last error, and the dead ones to send again.
// Rule: a delivery has no event of its own; it is read again after each change, and when the server has tried again.
import { html, useEffect, useState } from "../../core/html.js";
import { send } from "../../core/api.js";
import { count, plural } from "../../core/format.js";
import { usePaged } from "../../core/paged.js";
import { useResource } from "../../core/resource.js";
import { navigate, path, setQuery } from "../../core/router.js";
import { backhaul } from "../../parts/copy.js";
import { confirm } from "../../parts/dialog.js";
import { Empty } from "../../parts/empty.js";
import { Select } from "../../parts/fields.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { State } from "../../parts/state.js";
import { DataTable } from "../../parts/table.js";
import { Age, Instant } from "../../parts/time.js";
import { toast } from "../../parts/toast.js";

// Milliseconds after a try is due, for its answer; doubled while the try is overdue.
const AFTER = 1_000;
const LONGEST = 60_000;

export default function WebhookView({ params, query }) {
  const at = path("webhooks", params.id);
  const { data: webhook, problem, reload } = useResource(at, null, {}, { every: 2 });
  const list = usePaged(`${at}/deliveries`, { state: query.state }, {}, { every: 2 });
  const [refused, setRefused] = useState(null);
  const again = () => (reload(), list.reload());
  useTries(list.data, again);
  if (!webhook) return html`<${Page} title="Webhook" request=${{ path: at }}><${ProblemBox} problem=${problem} onRetry=${reload} />${!problem && html`<div class="skeleton" role="status" aria-label="Reading"><div /><div /></div>`}<//>`;
  const act = async (run, text) => {
    setRefused(null);
    try {
      toast(text(await run()));
    } catch (error) {
      setRefused(error);
    }
    again();
  };
  const enable = (enabled) => act(() => send("PATCH", at, { enabled }), () => (enabled ? "It gets the changes from now on" : "It gets nothing more"));
  const replayDead = () => confirm({ title: "Send the dead deliveries again", act: "Send again", text: "The newest 1,000 of them, in no order; each is tried for three days.", run: () => act(() => send("POST", `${at}/replay`), ({ body }) => `${plural(body.replayed, "delivery", "deliveries")} wait again`) });
  const remove = async () => {
    if (await confirm({ title: "Delete this webhook", act: "Delete", danger: true, text: "Its deliveries are deleted too.", run: () => send("DELETE", at) })) navigate("/webhooks");
  };
  const id = params.id;
  const replay = (row) => act(() => send("POST", `${at}/deliveries/${row.number}/replay`), () => `Change ${row.number} is sent again`);
  return html`<${Page} title=${webhook.url} subtitle=${html`<span class="row"><${State} value=${webhook.enabled ? "enabled" : "disabled"} />${webhook.note && html`<span>${webhook.note}</span>`}</span>`} request=${{ path: at }} command=${backhaul("webhook show", {}, id)}
    actions=${html`${webhook.enabled ? html`<button type="button" onClick=${() => enable(false)}>Disable</button>` : html`<button type="button" class="primary" onClick=${() => enable(true)}>Enable</button>`}
      <button type="button" onClick=${replayDead}>Replay dead deliveries…</button><button type="button" class="danger" onClick=${remove}>Delete…</button>`}>
    <div class="stack">
      <${ProblemBox} problem=${refused || problem} />
      <section class="card"><h2>What it gets</h2><dl class="facts">
        <dt>Types</dt><dd>${webhook.types.length ? webhook.types.map((one) => html`<span class="tag" key=${one}>${one}</span>`) : "every change"}</dd>
        <dt>Clients</dt><dd>${webhook.selector ? html`<code>${webhook.selector}</code>` : "all"}</dd>
        <dt>Waiting</dt><dd>${webhook.waiting >= 1000 ? "1,000 or more" : count(webhook.waiting)}</dd>
        <dt>Created</dt><dd><${Instant} at=${webhook.created_at} /> by ${webhook.created_by || "–"}</dd>
      </dl></section>
      <section><h2 class="over">Deliveries</h2>
        <div class="filters"><${Select} label="State" value=${query.state || ""} options=${[{ value: "", label: "Any" }, "waiting", "delivered", "dead"]} onChange=${(state) => setQuery({ state })} /></div>
        <${ProblemBox} problem=${list.problem} onRetry=${list.reload} />
        <${DataTable} label="Deliveries" columns=${columnsOf(replay)} rows=${list.data && list.data.deliveries} keyOf=${(row) => row.number} loading=${list.loading} cut=${list.cut} onMore=${list.more}
          empty=${query.state ? html`<${Empty} title=${`No delivery is ${query.state}`}><button type="button" onClick=${() => setQuery({ state: "" })}>Show all</button><//>` : html`<${Empty} title="Nothing was sent yet" text="The next change that it asks for appears here within a second." />`} />
      </section>
    </div>
  <//>`;
}

// The server names when it tries next: that is when there is something new to read.
function useTries(data, read) {
  const [seen, setSeen] = useState({ next: null, late: 0 });
  const waiting = data ? data.deliveries.filter((one) => one.state === "waiting").map((one) => (one.next_try_at ? Date.parse(one.next_try_at) : 0)) : [];
  const next = waiting.length ? Math.min(...waiting) : null;
  const late = seen.next === next ? seen.late : 0;
  useEffect(() => {
    if (next === null) return undefined;
    const overdue = next <= Date.now();
    const wait = overdue ? Math.min(LONGEST, AFTER * 2 ** late) : next - Date.now() + AFTER;
    const timer = setTimeout(() => {
      setSeen({ next, late: late + 1 });
      if (!document.hidden) read();
    }, Math.min(wait, 2 ** 31 - 1));
    return () => clearTimeout(timer);
  }, [next, late]);
}

const columnsOf = (replay) => [
  { title: "Change", value: (row) => html`${row.number} <span class="quiet">${row.type}</span>` },
  { title: "Of", value: (row) => row.subject },
  { title: "State", value: (row) => html`<${State} value=${row.state} />` },
  { title: "Tries", end: true, value: (row) => count(row.tries) },
  { title: "Last answer", wide: true, value: (row) => row.error || (row.status ? `HTTP ${row.status}` : html`<span class="quiet">–</span>`) },
  { title: "Tried", value: (row) => html`<${Age} at=${row.tried_at} />` },
  { title: "Next try", value: (row) => (row.state === "waiting" ? html`<${Age} at=${row.next_try_at} />` : html`<span class="quiet">–</span>`) },
  { title: "Act", value: (row) => (row.state === "waiting" ? html`<span class="quiet">–</span>` : html`<button type="button" onClick=${() => replay(row)}>Replay</button>`) },
];
