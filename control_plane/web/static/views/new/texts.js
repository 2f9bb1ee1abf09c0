// The texts of the form's fields and the members of REST's bodies. Rule: pure; what is empty is left out of a body.

export const linesOf = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
export const wordsOf = (text) => text.split(/[\s,]+/).filter(Boolean);

// A whole number as a number; any other text stays, and the server refuses it with a sentence.
export const numberOf = (text) => (/^-?\d+$/.test(text.trim()) ? Number(text.trim()) : text.trim());

// "30d" as seconds; any other text stays, as above.
export function secondsOf(text) {
  const found = /^(\d+(?:\.\d+)?)\s*([smhdw]?)$/.exec(text.trim());
  return found ? Number(found[1]) * { "": 1, s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800 }[found[2]] : text.trim();
}

// "site=berlin kind=till" as an object; a word without "=" is a problem that a form shows.
export function labelsOf(text) {
  const pairs = wordsOf(text).map((word) => [word, word.indexOf("=")]);
  const wrong = pairs.find(([, at]) => at < 1);
  if (wrong) throw { title: `${wrong[0]} is no label: write site=berlin` };
  return Object.fromEntries(pairs.map(([word, at]) => [word.slice(0, at), word.slice(at + 1)]));
}

// "0 1 * * * for 3h", then perhaps "device" (its zone) and "finish".
export function windowsOf(text) {
  return linesOf(text).map((line) => {
    const [cron, rest = ""] = line.split(/\s+for\s+/);
    const [length, ...more] = rest.split(/\s+/);
    return { cron, for: length || "", ...(more.includes("device") ? { zone: "device" } : {}), ...(more.includes("finish") ? { on_end: "finish" } : {}) };
  });
}

export function textOfWindows(windows) {
  return (windows || []).map((one) => `${one.cron} for ${timeOf(one.for)}${one.zone === "device" ? " device" : ""}${one.on_end === "finish" ? " finish" : ""}`).join("\n");
}

// Seconds as a text that REST takes: "36h", "90m", "45s"; a text stays.
export function timeOf(seconds) {
  if (seconds === null || seconds === undefined || seconds === "") return "";
  if (typeof seconds === "string") return seconds;
  for (const [unit, size] of [["d", 86_400], ["h", 3_600], ["m", 60]]) if (seconds >= size && seconds % size === 0) return `${seconds / size}${unit}`;
  return `${seconds}s`;
}

// Members with a value; an object without members is left out.
export function filled(members) {
  const kept = Object.entries(members).filter(([, value]) => value !== "" && value !== null && value !== undefined && !(Array.isArray(value) && !value.length) && !(typeof value === "object" && !Array.isArray(value) && !Object.keys(value).length));
  return Object.fromEntries(kept);
}
