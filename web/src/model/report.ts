// Container -> report: every array with its meaning, every index checked once, so that nothing after this file
// needs to ask whether an index is in range.

import type { Container } from "../format/container";
import { DataError, type Header, type RunView } from "../format/schema";
import { StringTable } from "../format/strings";
import { SPREAD_ARRAYS, spreadColumns, type SpreadColumns } from "./spread";

export const FLAG_IMPORT = 1;
export const FLAG_INTERPRETER = 2;
export const FLAG_SYNTHETIC = 4;
export const FLAG_NATIVE = 8;
export const ALIVE_AT_END = 0xffff;

export interface Frames {
  count: number;
  func: Uint32Array;
  file: Uint32Array;
  line: Uint32Array;
  flags: Uint8Array;
  /** Of a native frame, its executable or library; the empty string's number else. Empty if no frame is native. */
  object: Uint32Array;
}

export interface StackTree {
  count: number;
  parent: Uint32Array;
  frame: Uint32Array;
}

export interface Column {
  bytes: Float64Array;
  blocks: Float64Array;
}

export interface Values {
  node: Uint32Array;
  thread: Uint16Array;
  columns: Map<RunView, Column>;
  /** How sure they are; without an entry, they are counts and no estimates. */
  spreads: Map<RunView, SpreadColumns>;
}

export interface Lives extends Column {
  node: Uint32Array;
  thread: Uint16Array;
  birth: Uint16Array;
  death: Uint16Array;
}

export interface Timeline {
  t: Float64Array;
  rss: Float64Array;
  heap: Float64Array;
  gc: Uint32Array;
}

export interface Report {
  header: Header;
  strings: StringTable;
  frames: Frames;
  tree: StackTree;
  values: Values;
  lives: Lives;
  timeline: Timeline;
  marks: { t: number; label: string }[];
  /** Seconds that the time axis spans. */
  spanS: number;
}

const COLUMN_NAMES: Record<RunView, string> = { peak: "peak", leaks: "leak", total: "total", temporary: "temp" };

function below(array: ArrayLike<number>, limit: number, name: string): void {
  for (let i = 0; i < array.length; i++) {
    if (array[i] >= limit) throw new DataError(`${name}[${i}] is ${array[i]}, expected less than ${limit}`);
  }
}

function amounts(array: Float64Array, name: string): Float64Array {
  for (let i = 0; i < array.length; i++) {
    // Written so that NaN fails too.
    if (!(array[i] >= 0 && array[i] < Infinity)) throw new DataError(`${name}[${i}] is ${array[i]}`);
  }
  return array;
}

function sameCount(expected: number, arrays: Record<string, { length: number }>): void {
  for (const [name, array] of Object.entries(arrays)) {
    if (array.length !== expected) throw new DataError(`${name} has ${array.length} elements, expected ${expected}`);
  }
}

function readStrings(container: Container): StringTable {
  const offsets = container.array("string_offsets", "u32");
  const bytes = container.array("string_bytes", "u8");
  sameCount(container.header.stringsCount + 1, { string_offsets: offsets });
  if (offsets[0] !== 0) throw new DataError("string_offsets does not start at 0");
  for (let i = 1; i < offsets.length; i++) {
    if (offsets[i] < offsets[i - 1]) throw new DataError(`string_offsets decreases at ${i}`);
  }
  if (offsets[offsets.length - 1] > bytes.length) throw new DataError("string_offsets ends behind string_bytes");
  return new StringTable(offsets, bytes);
}

function readFrames(container: Container, strings: number): Frames {
  const func = container.array("frame_function", "u32");
  const file = container.array("frame_file", "u32");
  const line = container.array("frame_line", "u32");
  const flags = container.array("frame_flags", "u8");
  const object = container.optional("frame_object", "u32");
  sameCount(func.length, { frame_file: file, frame_line: line, frame_flags: flags });
  if (object.length > 0) sameCount(func.length, { frame_object: object });
  below(func, strings, "frame_function");
  below(file, strings, "frame_file");
  below(object, strings, "frame_object");
  return { count: func.length, func, file, line, flags, object };
}

function readTree(container: Container, frames: number): StackTree {
  const parent = container.array("node_parent", "u32");
  const frame = container.array("node_frame", "u32");
  if (parent.length === 0) throw new DataError("the stack tree has no root");
  sameCount(parent.length, { node_frame: frame });
  for (let i = 1; i < parent.length; i++) {
    if (parent[i] >= i) throw new DataError(`node_parent[${i}] is ${parent[i]}, expected less than ${i}`);
    if (frame[i] >= frames) throw new DataError(`node_frame[${i}] is ${frame[i]}, expected less than ${frames}`);
  }
  return { count: parent.length, parent, frame };
}

function readValues(container: Container, nodes: number): Values {
  const node = container.optional("val_node", "u32");
  const thread = container.optional("val_thread", "u16");
  sameCount(node.length, { val_thread: thread });
  below(node, nodes, "val_node");
  const columns = new Map<RunView, Column>();
  const spreads = new Map<RunView, SpreadColumns>();
  for (const [view, name] of Object.entries(COLUMN_NAMES) as [RunView, string][]) {
    if (!container.has(`${name}_bytes`)) continue;
    const bytes = amounts(container.array(`${name}_bytes`, "f64"), `${name}_bytes`);
    const blocks = amounts(container.array(`${name}_blocks`, "f64"), `${name}_blocks`);
    sameCount(node.length, { [`${name}_bytes`]: bytes, [`${name}_blocks`]: blocks });
    columns.set(view, { bytes, blocks });
    if (!container.has(`${name}_samples`)) continue;
    const spread = spreadColumns((field) => {
      const full = `${name}_${SPREAD_ARRAYS[field]}`;
      return amounts(container.array(full, "f64"), full);
    });
    for (const array of Object.values(spread)) sameCount(node.length, { [`${name}_samples and its like`]: array });
    spreads.set(view, spread);
  }
  return { node, thread, columns, spreads };
}

function readLives(container: Container, nodes: number): Lives {
  const node = container.optional("life_node", "u32");
  const thread = container.optional("life_thread", "u16");
  const birth = container.optional("life_birth", "u16");
  const death = container.optional("life_death", "u16");
  const bytes = amounts(container.optional("life_bytes", "f64"), "life_bytes");
  const blocks = amounts(container.optional("life_blocks", "f64"), "life_blocks");
  sameCount(node.length, {
    life_thread: thread, life_birth: birth, life_death: death, life_bytes: bytes, life_blocks: blocks,
  });
  below(node, nodes, "life_node");
  const buckets = container.header.buckets.count;
  below(birth, buckets, "life_birth");
  for (let i = 0; i < death.length; i++) {
    const ok = death[i] === ALIVE_AT_END || (death[i] >= birth[i] && death[i] < buckets);
    if (!ok) throw new DataError(`life_death[${i}] is ${death[i]}`);
  }
  return { node, thread, birth, death, bytes, blocks };
}

function readTimeline(container: Container): Timeline {
  const t = amounts(container.optional("tl_t", "f64"), "tl_t");
  const rss = container.optional("tl_rss", "f64");
  const heap = container.optional("tl_heap", "f64");
  const gc = container.optional("tl_gc", "u32");
  sameCount(t.length, { tl_rss: rss, tl_heap: heap, tl_gc: gc });
  for (let i = 1; i < t.length; i++) {
    if (t[i] < t[i - 1]) throw new DataError(`tl_t decreases at ${i}`);
  }
  return { t, rss, heap, gc };
}

export function readReport(container: Container): Report {
  const { header } = container;
  const strings = readStrings(container);
  const frames = readFrames(container, strings.count);
  const tree = readTree(container, frames.count);
  const values = readValues(container, tree.count);
  const lives = readLives(container, tree.count);
  const timeline = readTimeline(container);

  const markT = amounts(container.optional("mark_t", "f64"), "mark_t");
  const markLabel = container.optional("mark_label", "u32");
  sameCount(markT.length, { mark_label: markLabel });
  below(markLabel, strings.count, "mark_label");

  const spanS = Math.max(
    header.buckets.count * header.buckets.widthS,
    timeline.t.length > 0 ? timeline.t[timeline.t.length - 1] : 0,
    header.captures.length === 1 ? header.captures[0].durationS : 0,
  );
  return {
    header, strings, frames, tree, values, lives, timeline, spanS,
    marks: Array.from(markT, (t, i) => ({ t, label: strings.get(markLabel[i]) })),
  };
}
