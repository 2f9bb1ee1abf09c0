// From a thing to the records of the audit about it, for those who may read them.
import { html } from "../../core/html.js";
import { Link } from "../../core/router.js";
import { lacks } from "../../parts/rights.js";

export const NEEDS = "audit:read";

// A row of a list of facts; `where` is a filter of `GET /audit`, such as {target: "job:nightly"}.
export function RecordsLink(where) {
  return !lacks(NEEDS) && html`<dt>Audit</dt><dd><${Link} to="/audit" query=${where}>Who did what with it<//></dd>`;
}
