// A made-up data job: deterministic, with believable names, as many distinct stacks as asked for.

import { Builder } from "./builder";

/** Numbers in [0, 1): mulberry32. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const VERBS = ["load", "parse", "join", "group", "merge", "encode", "resolve", "build", "write", "match", "split", "render"];
const NOUNS = ["rows", "orders", "index", "record", "cache", "schema", "batch", "header", "token", "field", "table", "page"];
const PACKAGES = "/opt/venv/lib/python3.13/site-packages";
const FILES: [path: string, weight: number][] = [
  ["/app/jobs/etl.py", 9], ["/app/jobs/readers.py", 5], ["/app/jobs/aggregate.py", 5], ["/app/jobs/cache.py", 3],
  [`${PACKAGES}/sqlalchemy/orm/loading.py`, 4], [`${PACKAGES}/sqlalchemy/engine/result.py`, 3],
  [`${PACKAGES}/pydantic/main.py`, 3], [`${PACKAGES}/pydantic/fields.py`, 2], [`${PACKAGES}/jinja2/compiler.py`, 2],
  ["/usr/lib/python3.13/json/decoder.py", 3], ["/usr/lib/python3.13/csv.py", 2], ["/usr/lib/python3.13/re/_parser.py", 1],
  ["/usr/lib/python3.13/collections/__init__.py", 2], ["/usr/lib/python3.13/datetime.py", 1], ["/usr/lib/python3.13/logging/__init__.py", 1],
];

export function synthetic(stacks: number, seed = 7): Builder {
  const next = random(seed);
  const upTo = (n: number): number => Math.floor(next() * n);
  const b = new Builder();
  const buckets = 90;
  b.header = {
    ...b.header,
    title: "etl.py",
    captures: [{
      path: "etl.pmt", pid: 4711, command: ["python", "-m", "jobs.etl", "--input", "orders-2026.csv.gz", "--out", "report.parquet"],
      python: "3.13.0", mode: "full", started: "2026-03-01T12:00:00+00:00", duration_s: buckets, ended: "normal",
      age_s: 0.2, dropped: {}, folded: 0,
    }],
    buckets: { count: buckets, width_s: 1 },
    threads: [{ id: 0, name: "MainThread" }, { id: 1, name: "reader-1" }, { id: 2, name: "reader-2" }, { id: 3, name: "writer" }],
  };
  const weights = FILES.flatMap(([path, weight]) => new Array<string>(weight).fill(path));
  const frames = Array.from({ length: 6000 }, () => {
    const func = `${VERBS[upTo(VERBS.length)]}_${NOUNS[upTo(NOUNS.length)]}`;
    return b.frame({ func: next() < 0.4 ? `Reader.${func}` : func, file: weights[upTo(weights.length)], line: 10 + upTo(900) });
  });
  const boot = [
    b.frame({ func: "_run_module_as_main", file: "<frozen runpy>", line: 198, flags: 2 }),
    b.frame({ func: "_run_code", file: "<frozen runpy>", line: 88, flags: 2 }),
    b.frame({ func: "<module>", file: "/app/jobs/etl.py", line: 214 }),
  ];
  const imports = ["_find_and_load", "_find_and_load_unlocked", "_load_unlocked", "exec_module", "_call_with_frames_removed"].map(
    (func, i) => b.frame({ func, file: "<frozen importlib._bootstrap>", line: 1100 + i * 40, flags: 1 }),
  );

  // Each stack leaves an earlier one at some depth, as calls do; popular stacks become more popular.
  const bases: number[][] = [[...boot, frames[0]], [...boot, frames[1]], [...boot, ...imports, frames[2]]];
  const seen = new Set<number>();
  let peakBytes = 0;
  while (seen.size < stacks) {
    const base = bases[Math.floor(next() ** 3 * bases.length)];
    const keep = boot.length + upTo(base.length - boot.length + 1);
    const path = base.slice(0, keep);
    for (let extra = 1 + upTo(9); extra > 0; extra--) path.push(frames[Math.floor(next() ** 2 * frames.length)]);
    const node = b.stack(...path);
    if (seen.has(node)) continue;
    seen.add(node);
    if (bases.length < 4000 && path.length < 60) bases.push(path);

    const bytes = Math.round(64 * (1 / (next() + 1e-5)) ** 1.15);
    const blocks = Math.max(1, Math.round(bytes / (48 + upTo(400))));
    const thread = next() < 0.7 ? 0 : 1 + upTo(3);
    const held = next() < 0.35;
    const peak = next() < 0.6;
    if (peak) peakBytes += bytes;
    b.value(node, {
      peak: peak ? [bytes, blocks] : [0, 0],
      leak: held ? [bytes * 0.3, Math.max(1, Math.round(blocks * 0.3))] : [0, 0],
      total: [bytes * 6, blocks * 6],
      temp: next() < 0.5 ? [bytes * 2, blocks * 2] : [0, 0],
    }, thread);
    const birth = upTo(buckets);
    b.life(node, birth, held ? 0xffff : Math.min(buckets - 1, birth + upTo(30)), bytes, blocks, thread);
    if (next() < 0.4) {
      const again = upTo(buckets);
      b.life(node, again, Math.min(buckets - 1, again + upTo(4)), bytes * 2, blocks * 2, thread);
    }
  }

  const shape = (t: number): number =>
    t < 20 ? 0.1 + t / 33 : t < 61 ? 0.7 + Math.sin(t / 4) * 0.05 + ((t - 20) / 41) * 0.24 : 0.25 + 0.7 * Math.exp((61 - t) / 12);
  let highest = { t: 0, level: 0 };
  for (let t = 0; t <= buckets; t += 0.5) {
    const level = shape(t) + next() * 0.02;
    if (level > highest.level) highest = { t, level };
    b.timeline.push({ t, heap: level, rss: 0, gc: next() < 0.45 ? 1 + upTo(9) : 0 });
  }
  let resident = 0;
  for (const row of b.timeline) {
    row.heap *= peakBytes / highest.level;
    // Resident memory follows the heap up at once and down slowly.
    resident = Math.max(row.heap * 1.12, resident * 0.995);
    row.rss = resident + peakBytes * 0.15;
  }
  b.header.totals = { peak_bytes: peakBytes, peak_t_s: highest.t };
  b.marks = [{ t: 20, label: "load done" }, { t: 60, label: "grouping done" }];
  return b;
}
