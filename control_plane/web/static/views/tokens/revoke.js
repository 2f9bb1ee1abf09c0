// The end of a token: from then on it is refused, and so is each browser that signed in with it.
import { html } from "../../core/html.js";
import { send } from "../../core/api.js";
import { path } from "../../core/router.js";
import { confirm } from "../../parts/dialog.js";
import { toast } from "../../parts/toast.js";
import { askWhy, Why, whyHeader } from "../../parts/why.js";

// Asks, with a reason that is kept with the token; answers whether it was done. `own`: this browser signed in with it.
export function askRevoke(id, { subject = "", own = false } = {}) {
  askWhy();
  return confirm({
    title: `Revoke ${id}`,
    act: "Revoke the token",
    danger: true,
    text: html`<${Consequences} subject=${subject} own=${own} />`,
    run: async () => {
      await send("POST", `${path("tokens", id)}/revoke`, null, whyHeader());
      toast("The token is revoked");
    },
  });
}

function Consequences({ subject, own }) {
  return html`<div class="stack">
    <p>${subject ? `The token of ${subject}` : "It"} is refused within two seconds, everywhere, with its browsers and streams. This cannot be undone.</p>
    ${own && html`<p><strong>This browser signed in with it: you will be signed out.</strong></p>`}
    <${Why} placeholder="the laptop was stolen" hint="Kept with the token and in the audit" />
  </div>`;
}
