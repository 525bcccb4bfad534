// The header of the container as docs/flame-data.md describes it, and its check.
// Everything here comes from outside: nothing is used before its type has been looked at.

export const VIEWS = ["peak", "leaks", "total", "temporary"] as const;
export type RunView = (typeof VIEWS)[number];

export const WINDOW_VIEWS = ["kept", "allocated", "alive"] as const;
export type WindowView = (typeof WINDOW_VIEWS)[number];

export type Metric = "bytes" | "blocks";
export type HideKind = "import" | "interpreter" | "native";

export interface CaptureInfo {
  path: string;
  pid: number | null;
  command: string[];
  python: string;
  mode: string;
  started: string;
  durationS: number;
  ended: string;
  endedBy: string;
  exitStatus: number;
  ageS: number;
  dropped: [reason: string, count: number][];
  folded: number;
  /** Of a sampled recording, mean distance of samples in bytes at the start and at the end; else 0. */
  sampleBytes: number;
  sampleBytesNow: number;
}

export interface ThreadInfo {
  id: number;
  name: string;
}

export interface ArraySpec {
  type: string;
  offset: number;
  count: number;
}

export interface Header {
  title: string;
  captures: CaptureInfo[];
  view: RunView;
  inverted: boolean;
  tStart: string;
  buckets: { count: number; widthS: number };
  threads: ThreadInfo[];
  peakBytes: number;
  peakTS: number | null;
  arrays: Map<string, ArraySpec>;
  stringsCount: number;
  metric: Metric;
  window: { first: number; last: number } | null;
  windowView: WindowView;
  /** The part of the run, in seconds, that the values are of; null: all of it. */
  stretch: { startS: number; endS: number } | null;
  thread: number | null;
  hide: HideKind[];
  notes: string[];
}

/** The data cannot be shown; the message says what was wrong with it. */
export class DataError extends Error {
  override name = "DataError";
}

type Json = Record<string, unknown>;

function object(value: unknown, where: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new DataError(`${where} is not an object`);
  }
  return value as Json;
}

function list(value: unknown, where: string): unknown[] {
  if (!Array.isArray(value)) throw new DataError(`${where} is not a list`);
  return value;
}

function number(value: unknown, where: string): number {
  if (typeof value !== "number" || !Number.isFinite(value)) throw new DataError(`${where} is not a number`);
  return value;
}

function count(value: unknown, where: string, limit = 0xffffffff): number {
  const result = number(value, where);
  if (!Number.isInteger(result) || result < 0 || result > limit) {
    throw new DataError(`${where} is not an integer from 0 to ${limit}`);
  }
  return result;
}

function oneOf<T extends string>(value: unknown, choices: readonly T[], where: string): T {
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw new DataError(`${where} is none of ${choices.join(", ")}`);
  return found;
}

// What is only shown and never computed with may be absent: a report without a pid is still a report.
const text = (value: unknown): string => (typeof value === "string" ? value : "");
const amount = (value: unknown): number => (typeof value === "number" && Number.isFinite(value) ? value : 0);

function capture(value: unknown): CaptureInfo {
  const json = object(value, "a capture");
  const dropped = typeof json.dropped === "object" && json.dropped !== null ? json.dropped : {};
  return {
    path: text(json.path),
    pid: typeof json.pid === "number" ? json.pid : null,
    command: Array.isArray(json.command) ? json.command.map(text) : [],
    python: text(json.python),
    mode: text(json.mode),
    started: text(json.started),
    durationS: Math.max(0, amount(json.duration_s)),
    ended: text(json.ended),
    endedBy: text(json.ended_by),
    exitStatus: amount(json.exit_status),
    ageS: amount(json.age_s),
    dropped: Object.entries(dropped)
      .map(([reason, n]): [string, number] => [reason, amount(n)])
      .filter(([, n]) => n > 0),
    folded: amount(json.folded),
    sampleBytes: amount(json.sample_bytes),
    sampleBytesNow: amount(json.sample_bytes_now),
  };
}

export function parseHeader(value: unknown): Header {
  const json = object(value, "the header");
  const buckets = object(json.buckets, "buckets");
  const totals = object(json.totals, "totals");
  const bucketCount = count(buckets.count, "buckets.count", 65535);
  const widthS = number(buckets.width_s, "buckets.width_s");
  if (bucketCount > 0 && widthS <= 0) throw new DataError("buckets.width_s is not above 0");

  const threads = list(json.threads, "threads").map((item): ThreadInfo => {
    const thread = object(item, "a thread");
    return { id: count(thread.id, "a thread's id", 65535), name: text(thread.name) };
  });
  if (new Set(threads.map((thread) => thread.id)).size !== threads.length) {
    throw new DataError("two threads have the same id");
  }

  const arrays = new Map<string, ArraySpec>();
  for (const [name, item] of Object.entries(object(json.arrays, "arrays"))) {
    const spec = object(item, `arrays.${name}`);
    arrays.set(name, {
      type: text(spec.type),
      offset: count(spec.offset, `arrays.${name}.offset`, Number.MAX_SAFE_INTEGER),
      count: count(spec.count, `arrays.${name}.count`),
    });
  }

  let window: Header["window"] = null;
  if (json.window !== undefined && json.window !== null) {
    const given = object(json.window, "window");
    const first = count(given.first, "window.first", 65534);
    const last = count(given.last, "window.last", 65534);
    if (first > last || last >= bucketCount) throw new DataError("window lies outside the buckets");
    window = { first, last };
  }

  let stretch: Header["stretch"] = null;
  if (json.stretch !== undefined && json.stretch !== null) {
    const given = object(json.stretch, "stretch");
    stretch = { startS: number(given.start_s, "stretch.start_s"), endS: number(given.end_s, "stretch.end_s") };
    if (stretch.startS < 0 || stretch.endS < stretch.startS) throw new DataError("stretch ends before it starts");
  }

  const thread = json.thread === undefined || json.thread === null ? null : count(json.thread, "thread", 65535);
  const hide = json.hide === undefined ? [] : list(json.hide, "hide");
  const notes = json.notes === undefined ? [] : list(json.notes, "notes");
  return {
    title: text(json.title),
    captures: list(json.captures, "captures").map(capture),
    view: oneOf(json.view, VIEWS, "view"),
    inverted: json.inverted === true,
    tStart: text(json.t_start),
    buckets: { count: bucketCount, widthS },
    threads,
    peakBytes: amount(totals.peak_bytes),
    peakTS: typeof totals.peak_t_s === "number" ? amount(totals.peak_t_s) : null,
    arrays,
    stringsCount: count(json.strings_count, "strings_count"),
    metric: json.metric === undefined ? "bytes" : oneOf(json.metric, ["bytes", "blocks"] as const, "metric"),
    window,
    windowView: json.window_view === undefined ? "kept" : oneOf(json.window_view, WINDOW_VIEWS, "window_view"),
    stretch,
    thread: thread !== null && threads.some((t) => t.id === thread) ? thread : null,
    hide: hide.map((item) => oneOf(item, ["import", "interpreter", "native"] as const, "hide")),
    notes: notes.map(text).filter((note) => note !== ""),
  };
}
