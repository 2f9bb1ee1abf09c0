// Numbers and instants as a person reads them. Rule: pure; the server sends bytes, seconds and RFC 3339 in UTC.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const NONE = "–";

export function bytes(n) {
  if (n === null || n === undefined) return NONE;
  let value = n;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

// Bytes a second.
export const rate = (n) => (n === null || n === undefined || !Number.isFinite(n) ? NONE : `${bytes(n)}/s`);

const COUNT = new Intl.NumberFormat("en");
export const count = (n) => (n === null || n === undefined ? NONE : COUNT.format(n));

// "1 client", "2 clients".
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

const two = (n) => String(n).padStart(2, "0");
const dateOf = (given) => (given instanceof Date ? given : new Date(typeof given === "number" ? given * 1000 : given));

// In the reader's zone: "10:02:31" today, else "27 Nov 10:02", with the year where it is another one.
export function instant(given, now = new Date()) {
  if (given === null || given === undefined) return NONE;
  const at = dateOf(given);
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}`;
  if (at.toDateString() === now.toDateString()) return `${clock}:${two(at.getSeconds())}`;
  const day = `${at.getDate()} ${at.toLocaleString("en", { month: "short" })}`;
  return `${day}${at.getFullYear() === now.getFullYear() ? "" : ` ${at.getFullYear()}`} ${clock}`;
}

// "2026-11-27 10:02:31 UTC".
export function utc(given) {
  if (given === null || given === undefined) return NONE;
  return `${dateOf(given).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

// "3 min ago", "in 2 h".
export function ago(given, now = Date.now()) {
  if (given === null || given === undefined) return NONE;
  const seconds = (now - dateOf(given).getTime()) / 1000;
  if (Math.abs(seconds) < 2) return "now";
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
}

const STEPS = [
  [86_400, "d"],
  [3_600, "h"],
  [60, "min"],
  [1, "s"],
];

// Seconds: "42 s", "3 min", "2 h 5 min", "4 d".
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  const whole = Math.max(0, Math.round(seconds));
  const index = STEPS.findIndex(([size]) => whole >= size);
  if (index < 0) return "0 s";
  const [size, unit] = STEPS[index];
  const first = Math.floor(whole / size);
  const rest = index + 1 < STEPS.length ? Math.floor((whole % size) / STEPS[index + 1][0]) : 0;
  return rest && first < 10 && index < 2 ? `${first} ${unit} ${rest} ${STEPS[index + 1][1]}` : `${first} ${unit}`;
}

// "27 %"; 99.9 stays below 100.
export const percent = (n) => (n === null || n === undefined ? NONE : `${n >= 100 ? 100 : Math.floor(n)} %`);
