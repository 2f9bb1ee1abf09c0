// Every schedule: when it ticks, when next, whether it is paused, and what runs.
import { html } from "../../core/html.js";
import { count } from "../../core/format.js";
import { usePaged } from "../../core/paged.js";
import { Link, path } from "../../core/router.js";
import { Empty } from "../../parts/empty.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { State } from "../../parts/state.js";
import { DataTable } from "../../parts/table.js";
import { Age, Instant } from "../../parts/time.js";

export default function Schedules() {
  const { data, problem, loading, cut, more, reload } = usePaged("/schedules", {}, { types: ["schedule.", "job.state_changed"] });
  return html`<${Page} title="Schedules" subtitle="Jobs made by the clock" request=${{ path: "/schedules" }} command="backhaul schedule list"
    actions=${html`<${Link} class="button primary" to="/new/schedule">New schedule<//>`}>
    <${ProblemBox} problem=${problem} onRetry=${reload} />
    ${!(problem && !data) && html`<${DataTable} label="Schedules" columns=${COLUMNS} rows=${data && data.schedules} keyOf=${(row) => row.schedule_id} loading=${loading} cut=${cut} onMore=${more}
      empty=${html`<${Empty} title="There are no schedules yet" text="A schedule makes a job at each tick, such as the daily report at three in the morning, and shows whose file is missing."><${Link} class="button primary" to="/new/schedule">Make the first schedule<//><//>`} />`}
  <//>`;
}

export const cadenceOf = (row) => (row.cron ? html`<code>${row.cron}</code> in ${row.zone}` : html`every ${row.every}`);

const COLUMNS = [
  { title: "Schedule", value: (row) => html`<${Link} to=${path("schedules", row.schedule_id)}>${row.schedule_id}<//>` },
  { title: "State", value: (row) => html`<${State} value=${row.paused ? "paused" : "active"} />` },
  { title: "Ticks", value: cadenceOf },
  { title: "Next tick", value: (row) => (row.paused ? html`<span class="quiet">–</span>` : html`<${Instant} at=${row.next_at} /> <span class="quiet">(<${Age} at=${row.next_at} />)</span>`) },
  { title: "Running", wide: true, value: (row) => (row.running.length ? row.running.slice(0, 3).map((job) => html`<${Link} key=${job} class="tag" to=${path("jobs", job)}>${job}<//>`) : html`<span class="quiet">–</span>`) },
  { title: "Queued", end: true, value: (row) => count(row.queued) },
  { title: "Failures in a row", end: true, value: (row) => count(row.failures) },
];
