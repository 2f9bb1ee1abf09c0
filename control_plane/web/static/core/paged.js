// A list that a person may lengthen. Rule: it is always read from its beginning, so what is shown is one state of the
// list; beyond the longest page that REST has, a person narrows the filter.
import { useEffect, useState } from "./html.js";
import { useResource } from "./resource.js";

const STEPS = [50, 200, 500];

// As `useResource`; `more` lengthens the list, and is undefined where there is no more or no longer page. A list that
// ends at the longest page has `cut` and no `more`.
export function usePaged(path, params, match, options) {
  const [step, setStep] = useState(0);
  const filters = JSON.stringify(params || {});
  useEffect(() => setStep(0), [path, filters]);
  const found = useResource(path, { ...params, limit: STEPS[step] }, match, options);
  const cut = Boolean(found.data && found.data.cursor);
  return { ...found, cut, more: cut && step + 1 < STEPS.length ? () => setStep(step + 1) : undefined };
}
