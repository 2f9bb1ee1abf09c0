// A document as the server gets or sends it.
import { html } from "../core/html.js";

export function Json({ value, label = "JSON" }) {
  return html`<pre class="json" tabindex="0" aria-label=${label}><code>${JSON.stringify(value, null, 2)}</code></pre>`;
}
