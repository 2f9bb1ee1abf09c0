// What the caller may not read, as plain sentences. Rule: the server decides; a view that would be refused does not ask,
// since each refusal is a record of the audit.
import { html } from "../core/html.js";
import { session } from "../core/session.js";
import { Empty } from "./empty.js";

// Why the caller may not read what needs `scope` and is about the whole fleet; "" where it may.
export function lacks(scope) {
  const who = session.value;
  if (!who || !who.auth || !who.caller) return "";
  if (!who.scopes.includes(scope)) return lacksScope(scope);
  return who.clients === null ? "" : `It is about all clients, and your token is for those of ${who.clients} only.`;
}

// Why the caller may not do what needs `scope` on a client that it sees; "" where it may.
export function lacksScope(scope) {
  const who = session.value;
  if (!who || !who.auth || !who.caller || who.scopes.includes(scope)) return "";
  return `It needs the scope ${scope}, which your token does not have.`;
}

// In place of a list that the caller may not read: `what` is the end of the sentence "Your token does not show …".
export function Closed({ what, why }) {
  return html`<${Empty} title=${`Your token does not show ${what}`} text=${why}>
    <a class="button" href="/help/how-to/give-rights">How rights are given</a>
  <//>`;
}
