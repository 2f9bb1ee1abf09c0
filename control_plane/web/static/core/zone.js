// The zone in which instants are shown, and the present moment for ages. Rule: the only timer here moves what is shown.
import { signal } from "../vendor/signals.js";

const KEPT = "backhaul.zone";

// "local" or "utc"; kept in this browser.
export const zone = signal(localStorage.getItem(KEPT) === "utc" ? "utc" : "local");

export function switchZone() {
  zone.value = zone.value === "utc" ? "local" : "utc";
  localStorage.setItem(KEPT, zone.value);
}

// The reader's zone, as "Europe/Berlin".
export const localZone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local";

// Milliseconds since the epoch, moved on every five seconds while the page is seen.
export const now = signal(Date.now());

setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 5_000);
addEventListener("visibilitychange", () => {
  if (!document.hidden) now.value = Date.now();
});
