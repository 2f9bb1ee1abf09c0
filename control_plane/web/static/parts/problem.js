// What went wrong, what to do, and the page that explains it.
import { html } from "../core/html.js";
import { reasonPage } from "./state.js";

// `problem` is a `Problem` of core/api.js; `onRetry` adds a button.
export function ProblemBox({ problem, onRetry }) {
  if (!problem) return null;
  const code = problem.reason || problem.type;
  return html`<div class="problem" role="alert">
    <strong>${problem.title || "The request failed"}</strong>
    ${problem.detail && html`<p>${problem.detail}</p>`}
    <p class="row">
      ${code && problem.status > 0 && html`<a class="code" href=${reasonPage(code)}>${code}</a>`}
      ${onRetry && html`<button type="button" onClick=${onRetry}>Try again</button>`}
    </p>
  </div>`;
}
