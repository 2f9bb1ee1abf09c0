// The tokens that were used or revoked: whose they are, what they may do, and their end.
// Rule: no token is ever shown or typed here, only its id: it is made on the command line, by a person with the secret.
import { html, useState } from "../../core/html.js";
import { useResource } from "../../core/resource.js";
import { Link, path } from "../../core/router.js";
import { session } from "../../core/session.js";
import { Copyable } from "../../parts/copy.js";
import { Empty } from "../../parts/empty.js";
import { Field } from "../../parts/fields.js";
import { Page } from "../../parts/page.js";
import { Pager } from "../../parts/pager.js";
import { ProblemBox } from "../../parts/problem.js";
import { Closed, lacks } from "../../parts/rights.js";
import { State } from "../../parts/state.js";
import { DataTable } from "../../parts/table.js";
import { Age, Instant } from "../../parts/time.js";
import { askRevoke } from "./revoke.js";
import { SCOPES } from "./scopes.js";

const ROWS = 50;
export const NEEDS = "devices:admin";
const CREATE = "backhaul token create --subject berlin-till --scope uploads:read --clients site=berlin --lifetime 8h";

export default function Tokens({ query }) {
  const why = lacks(NEEDS);
  const params = { limit: ROWS, cursor: query.cursor };
  // A use of a token is no event: it is read again with each change, not oftener than every five seconds.
  const { data, problem, loading, reload } = useResource(why ? null : "/tokens", params, {}, { every: 5 });
  const frame = { title: "Tokens", subtitle: "Those that were used or revoked, and have not expired", request: { path: "/tokens", query: params }, command: "backhaul token list" };
  if (why) return html`<${Page} ...${frame}><${Closed} what="tokens" why=${why} /><//>`;
  return html`<${Page} ...${frame}>
    <div class="stack">
      <${ProblemBox} problem=${problem} onRetry=${reload} />
      ${!(problem && !data) && html`<${DataTable} label="Tokens" columns=${COLUMNS} rows=${data && data.tokens} keyOf=${(row) => row.token_id} loading=${loading} empty=${html`<${None} />`} />`}
      ${data && html`<${Pager} rows=${data.tokens.length} cursor=${data.cursor} noun="tokens" />`}
      <div class="columns">
        <section class="card stack"><h2>Make a token</h2>
          <p>A token is printed once, where <code>JWT_SECRET</code> is. Give it only the scopes and the clients that it needs.</p>
          <${Copyable} label="On the machine of the control plane" text=${CREATE} />
          <p><a href="/help/how-to/give-rights">Scopes, and what each allows</a></p>
        </section>
        <${Unlisted} onDone=${reload} />
      </div>
    </div>
  <//>`;
}

// A token that was never used is in no list, and may be in the wrong hands all the same.
function Unlisted({ onDone }) {
  const [id, setId] = useState("");
  const submit = async (event) => {
    event.preventDefault();
    if (await askRevoke(id.trim())) setId("");
    onDone();
  };
  return html`<section class="card stack"><h2>Revoke one that is not listed</h2>
    <p>A token that was never used is not known here. Its id is its claim <code>jti</code>.</p>
    <form class="row inline" onSubmit=${submit}>
      <${Field} label="Id of the token" value=${id} onInput=${setId} placeholder="9f2c4e6a8b0d1f35" required />
      <button class="danger" disabled=${!id.trim()}>Revoke…</button>
    </form>
  </section>`;
}

export const tokenState = (token) => (token.revoked_at ? "revoked" : "valid");

// What it may do: each scope, or that it has all of them.
export function Scopes({ token }) {
  if (!token.subject) return html`<span class="quiet">–</span>`;
  if (SCOPES.every((one) => token.scopes.includes(one))) return html`<strong>everything</strong>`;
  if (!token.scopes.length) return html`<span class="quiet">nothing</span>`;
  return token.scopes.map((one) => html`<span class="tag" key=${one}>${one}</span>`);
}

export function Reach({ token }) {
  if (!token.subject) return html`<span class="quiet">–</span>`;
  return token.clients === null ? html`<span class="quiet">every client</span>` : html`<code>${token.clients}</code>`;
}

const COLUMNS = [
  { title: "Token", value: (row) => html`<${Link} to=${path("tokens", row.token_id)}><code>${row.token_id}</code><//>` },
  { title: "Who", value: (row) => html`<span>${row.subject || html`<span class="quiet">never used</span>`} ${row.current && html`<span class="tag nowrap">this browser</span>`}</span>` },
  { title: "State", value: (row) => html`<${State} value=${tokenState(row)} />` },
  { title: "May do", value: (row) => html`<span><${Scopes} token=${row} /></span>` },
  { title: "Clients", value: (row) => html`<${Reach} token=${row} />` },
  { title: "Last used", value: (row) => html`<span class="nowrap"><${Age} at=${row.used_at} /></span>` },
  { title: "Expires", value: (row) => html`<span class="nowrap"><${Instant} at=${row.expires_at} /></span>` },
];

function None() {
  if (session.value && !session.value.auth) {
    return html`<${Empty} title="This server asks for no token" text="Everyone who can reach it can do everything. Set JWT_SECRET, and each caller needs a token of its own.">
      <a class="button" href="/help/how-to/give-rights">Tokens and rights</a>
    <//>`;
  }
  return html`<${Empty} title="No token was used yet" text="A token appears here with its first call." />`;
}
