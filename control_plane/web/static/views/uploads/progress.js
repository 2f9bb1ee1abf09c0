// How far an upload is, as a bar and a number; it moves while the upload does.
import { html, cls, useEffect, useRef, useState } from "../../core/html.js";
import { followUpload } from "../../core/live.js";
import { percent } from "../../core/format.js";

const MOVING = new Set(["dispatched", "in_progress", "completing"]);
export const OPEN = new Set(["queued", ...MOVING]);

// The upload with the latest progress that the stream sent, or as it was read, whichever is later. `onProgress(facts,
// before)` is called with each document of the stream.
export function useProgress(upload, onProgress) {
  const [seen, setSeen] = useState(null);
  const last = useRef(null);
  const moves = upload && MOVING.has(upload.state || upload.status);
  useEffect(() => {
    if (!moves) return undefined;
    return followUpload(upload.upload_id, (facts) => {
      if (onProgress) onProgress(facts, last.current);
      last.current = facts;
      setSeen(facts);
    });
  }, [upload && upload.upload_id, moves]);
  const fits = seen && upload && moves && seen.upload_id === upload.upload_id && (upload.attempt === undefined || seen.attempt === upload.attempt) && seen.progress >= upload.progress;
  return fits ? { ...upload, progress: seen.progress, bytes_uploaded: seen.bytes_uploaded, file_size: seen.file_size, completed_parts: seen.completed_parts, total_parts: seen.total_parts } : upload;
}

export function Progress({ upload, wide }) {
  const latest = useProgress(upload);
  return html`<${Meter} value=${latest.progress} status=${latest.status} wide=${wide} />`;
}

export function Meter({ value, status, wide }) {
  const tone = status === "completed" ? "good" : status === "failed" ? "bad" : "busy";
  return html`<span class=${cls("advance", wide && "broad")}>
    <span class=${cls("meter", tone)} role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.floor(value)}><span style=${{ width: `${value}%` }}></span></span>
    <span class="number">${percent(value)}</span>
  </span>`;
}
