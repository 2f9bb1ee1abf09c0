// The fleet in a minute: who is there, what moves, what waits and why.
import { html } from "../core/html.js";
import { Page } from "../parts/page.js";

export default function Fleet() {
  return html`<${Page} title="Fleet" subtitle="Everything at a glance" request=${{ path: "/fleet" }} command="backhaul clients"><//>`;
}
