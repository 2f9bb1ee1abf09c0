// The first act of a new site: one upload, one click away.
import { html, useState } from "../core/html.js";
import { send } from "../core/api.js";
import { Link, href, navigate, path } from "../core/router.js";
import { useResource } from "../core/resource.js";
import { Empty } from "../parts/empty.js";
import { ProblemBox } from "../parts/problem.js";

const CONNECTED = { state: "connected", limit: 1 };

export function FirstSteps() {
  const { data } = useResource("/clients", CONNECTED, { types: ["client."] });
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const client = data && data.clients[0];
  if (!data) return null;
  if (!client) return html`<${Empty} title="Nothing was uploaded yet" text="No client is online. An upload that is triggered now waits until its client connects."><${Link} class="button" to="/clients">See the clients<//><//>`;
  const trigger = async () => {
    setBusy(true);
    try {
      const { body } = await send("POST", path("trigger-download", client.client_id));
      navigate(path("uploads", body.upload_id));
    } catch (refused) {
      setProblem(refused);
      setBusy(false);
    }
  };
  return html`<${Empty} title="Nothing was uploaded yet" text=${`${client.client_id} is online. Command it to upload its default file, or choose another one.`}>
    <button type="button" class="primary" disabled=${busy} onClick=${trigger}>Upload from ${client.client_id}</button>
    <a class="button" href=${href("/new/trigger", { client: client.client_id })}>Choose a file</a>
    <${ProblemBox} problem=${problem} />
  <//>`;
}
