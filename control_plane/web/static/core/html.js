// What every view is made of. Rule: views and parts import from here, never from vendor/.
import { h, render } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);
export { render };
export { useState, useEffect, useMemo, useRef, useId, useErrorBoundary } from "../vendor/hooks.js";
export { signal, computed } from "../vendor/signals.js";

// Joins the class names that are given: cls("a", flag && "b").
export const cls = (...names) => names.filter(Boolean).join(" ");
