// An address that no view has.
import { html } from "../core/html.js";
import { Link, route } from "../core/router.js";
import { Page } from "../parts/page.js";
import { Empty } from "../parts/empty.js";

export default function Missing() {
  return html`<${Page} title="Nothing is here">
    <${Empty} title=${`There is no view at ${route.value.path}`} text="The link may be from another version.">
      <${Link} class="button primary" to="/">Go to the fleet<//>
    <//>
  <//>`;
}
