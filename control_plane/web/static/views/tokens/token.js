// One token: what it may do, when and where it was used last, and its end.
import { html } from "../../core/html.js";
import { useResource } from "../../core/resource.js";
import { path } from "../../core/router.js";
import { backhaul } from "../../parts/copy.js";
import { Page } from "../../parts/page.js";
import { ProblemBox } from "../../parts/problem.js";
import { Closed, lacks } from "../../parts/rights.js";
import { State } from "../../parts/state.js";
import { Age, Instant } from "../../parts/time.js";
import { RecordsLink } from "../audit/link.js";
import { askRevoke } from "./revoke.js";
import { NEEDS, Reach, Scopes, tokenState } from "./tokens.js";

export default function Token({ params }) {
  const id = params.id;
  const at = path("tokens", id);
  const why = lacks(NEEDS);
  const { data: token, problem, reload } = useResource(why ? null : at, null, {}, { every: 5 });
  const frame = { title: id, request: { path: at }, command: backhaul("token show", {}, id) };
  if (why) return html`<${Page} ...${frame}><${Closed} what="tokens" why=${why} /><//>`;
  if (!token) return html`<${Page} ...${frame}><${ProblemBox} problem=${problem} onRetry=${reload} />${!problem && html`<div class="skeleton" role="status" aria-label="Reading"><div /><div /></div>`}<//>`;
  const revoke = async () => (await askRevoke(id, { subject: token.subject, own: token.current })) && reload();
  return html`<${Page} ...${frame} subtitle=${html`<span class="row"><${State} value=${tokenState(token)} /><span>${token.subject ? `of ${token.subject}` : "revoked before it was ever used"}</span>${token.current && html`<span class="tag">this browser</span>`}</span>`}
      actions=${!token.revoked_at && html`<button type="button" class="danger" onClick=${revoke}>Revoke…</button>`}>
    <div class="stack">
      <${ProblemBox} problem=${problem} onRetry=${reload} />
      <section class="card"><h2>Facts</h2><dl class="facts">
        <dt>May do</dt><dd><${Scopes} token=${token} /></dd>
        <dt>Clients</dt><dd><${Reach} token=${token} /></dd>
        <dt>Last used</dt><dd><${Age} at=${token.used_at} />${token.address && html` from <code>${token.address}</code>`}</dd>
        <dt>Expires</dt><dd><${Instant} at=${token.expires_at} /></dd>
        ${token.revoked_at && html`<dt>Revoked</dt><dd><${Instant} at=${token.revoked_at} /> by ${token.revoked_by || "–"}</dd>
          <dt>Why</dt><dd>${token.reason || html`<span class="quiet">no reason was given</span>`}</dd>`}
        <${RecordsLink} target=${`token:${id}`} />
      </dl></section>
    </div>
  <//>`;
}
