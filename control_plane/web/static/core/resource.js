// What a view shows of the server: read once, and again after a change that concerns it.
// Rule: never read by a timer alone: the only timers here keep one read a second apart from the next.
import { useState, useEffect, useRef } from "./html.js";
import { get, pathWith } from "./api.js";
import { onChange } from "./live.js";

// {data, problem, loading, reload}. `path` null reads nothing. `match` (see live.js) names the changes that concern it;
// without it there is no second read. `every` is the least distance of two reads in seconds.
// Old data stays while it is read again, also with other `params`; another `path` begins without data. A read that
// failed keeps the data of the same address, and drops the data of other `params`: they answer another question.
export function useResource(path, params, match, { every = 1 } = {}) {
  const [state, setState] = useState({ ...EMPTY, path: null, loading: true });
  const reload = useRef(() => {});
  const key = path === null ? null : pathWith(path, params);
  const concern = JSON.stringify(match || null);
  useEffect(() => {
    if (key === null) return undefined;
    const reader = new Reader(key, every, (result) => setState((old) => after(old.path === path ? old : EMPTY, { path, key, ...result })));
    reload.current = () => reader.read();
    reader.read();
    const stop = match ? onChange(match, () => reader.soon()) : () => {};
    return () => {
      stop();
      reader.end();
    };
  }, [key, concern]);
  const fresh = state.path === path;
  return { data: fresh ? state.data : null, problem: fresh ? state.problem : null, loading: fresh ? state.loading : key !== null, reload: () => reload.current() };
}

const EMPTY = { key: null, data: null, problem: null };

// `key` in the state is the address that its data were read from.
function after(old, { key, ...result }) {
  if ("data" in result) return { ...old, ...result, key };
  return result.problem && old.key !== key ? { ...old, ...result, key: null, data: null } : { ...old, ...result };
}

// Reads one address, one answer at a time; a change during a read causes one more read.
class Reader {
  constructor(key, every, deliver) {
    Object.assign(this, { key, every: every * 1000, deliver, began: 0, timer: 0, reading: null, again: false, ended: false });
  }

  async read() {
    if (this.reading) {
      this.again = true;
      return;
    }
    clearTimeout(this.timer);
    this.timer = 0;
    this.began = performance.now();
    this.reading = new AbortController();
    this.deliver({ loading: true });
    try {
      const data = await get(this.key, null, { signal: this.reading.signal });
      if (!this.ended) this.deliver({ data, problem: null, loading: false });
    } catch (problem) {
      if (!this.ended && problem.name !== "AbortError") this.deliver({ problem, loading: false });
    }
    this.reading = null;
    if (this.again && !this.ended) {
      this.again = false;
      this.soon();
    }
  }

  soon() {
    if (this.reading) this.again = true;
    else if (!this.timer) this.timer = setTimeout(() => this.read(), Math.max(0, this.began + this.every - performance.now()));
  }

  end() {
    this.ended = true;
    clearTimeout(this.timer);
    if (this.reading) this.reading.abort();
  }
}
