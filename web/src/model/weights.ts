// Which rows count, and what they add up to per tree node.

import type { RunView, WindowView } from "../format/schema";
import { ALIVE_AT_END, type Report } from "./report";
import { addPart, emptyColumns, type SpreadColumns } from "./spread";
import type { Structure } from "./structure";

export interface Window {
  first: number;
  last: number; // inclusive
}

export interface Selection {
  view: RunView;
  windowView: WindowView;
  window: Window | null;
  thread: number | null;
}

/** Self bytes and blocks per tree node, and how sure they are if they are estimates. */
export interface Weights {
  bytes: Float64Array;
  blocks: Float64Array;
  spread: SpreadColumns | null;
}

function fromRows(report: Report, structure: Structure, selection: Selection, into: Weights): void {
  const { values } = report;
  const column = values.columns.get(selection.view);
  if (column === undefined) return;
  const spread = values.spreads.get(selection.view);
  const { thread } = selection;
  for (let i = 0; i < values.node.length; i++) {
    if (thread !== null && values.thread[i] !== thread) continue;
    const node = structure.nodeOf[values.node[i]];
    into.bytes[node] += column.bytes[i];
    into.blocks[node] += column.blocks[i];
    if (spread !== undefined && into.spread !== null) addPart(into.spread, node, spread, i, 1, 1);
  }
}

/** The value row of each (node, thread), for the lives of that pair. */
function rowsByPair(report: Report): Map<number, number> {
  const { node, thread } = report.values;
  const result = new Map<number, number>();
  for (let i = 0; i < node.length; i++) result.set(node[i] * 0x10000 + thread[i], i);
  return result;
}

const share = (part: number, whole: number): number => (part < whole ? part / whole : 1);

/**
 * What a life row has of the spread of its (node, thread). What is alive at the end has its part of the view "leaks", what has
 * died one of the rest of "total".
 */
function addLifeSpread(report: Report, rows: Map<number, number>, i: number, into: SpreadColumns, node: number): void {
  const { lives, values } = report;
  const total = values.columns.get("total");
  const leaks = values.columns.get("leaks");
  const totalSpread = values.spreads.get("total");
  const leakSpread = values.spreads.get("leaks");
  const row = rows.get(lives.node[i] * 0x10000 + lives.thread[i]);
  if (total === undefined || leaks === undefined || totalSpread === undefined || leakSpread === undefined) return;
  if (row === undefined) return;
  if (lives.death[i] === ALIVE_AT_END) {
    addPart(
      into, node, leakSpread, row,
      share(lives.bytes[i], leaks.bytes[row]), share(lives.blocks[i], leaks.blocks[row]),
    );
    return;
  }
  const bytes = share(lives.bytes[i], total.bytes[row] - leaks.bytes[row]);
  const blocks = share(lives.blocks[i], total.blocks[row] - leaks.blocks[row]);
  const rest = (whole: Float64Array, alive: Float64Array): number => Math.max(0, whole[row] - alive[row]);
  into.samples[node] += rest(totalSpread.samples, leakSpread.samples) * blocks;
  into.sureBytes[node] += rest(totalSpread.sureBytes, leakSpread.sureBytes) * bytes;
  into.sureBlocks[node] += rest(totalSpread.sureBlocks, leakSpread.sureBlocks) * blocks;
  into.bytes2[node] += rest(totalSpread.bytes2, leakSpread.bytes2) * bytes;
  into.blocks2[node] += rest(totalSpread.blocks2, leakSpread.blocks2) * blocks;
}

function fromLives(
  report: Report, structure: Structure, selection: Selection, window: Window, into: Weights,
): void {
  const { lives } = report;
  const { thread, windowView } = selection;
  const rows = into.spread === null ? null : rowsByPair(report);
  // The three views differ in two bounds only; docs/flame-data.md has the table.
  const bornFrom = windowView === "alive" ? 0 : window.first;
  const diesAfter = windowView === "allocated" ? -1 : window.last;
  for (let i = 0; i < lives.node.length; i++) {
    const birth = lives.birth[i];
    if (birth < bornFrom || birth > window.last || lives.death[i] <= diesAfter) continue;
    if (thread !== null && lives.thread[i] !== thread) continue;
    const node = structure.nodeOf[lives.node[i]];
    into.bytes[node] += lives.bytes[i];
    into.blocks[node] += lives.blocks[i];
    if (rows !== null && into.spread !== null) addLifeSpread(report, rows, i, into.spread, node);
  }
}

export function selectWeights(report: Report, structure: Structure, selection: Selection): Weights {
  const { count } = structure;
  const known = selection.window === null ? report.values.spreads.has(selection.view) : report.values.spreads.size > 0;
  const into: Weights = {
    bytes: new Float64Array(count), blocks: new Float64Array(count), spread: known ? emptyColumns(count) : null,
  };
  if (selection.window === null) fromRows(report, structure, selection, into);
  else fromLives(report, structure, selection, selection.window, into);
  return into;
}

/** Bytes per thread id in a whole-run view: what the thread menu shows. */
export function bytesByThread(report: Report, view: RunView): Map<number, number> {
  const result = new Map<number, number>();
  const column = report.values.columns.get(view);
  if (column === undefined) return result;
  const { node, thread } = report.values;
  for (let i = 0; i < node.length; i++) {
    result.set(thread[i], (result.get(thread[i]) ?? 0) + column.bytes[i]);
  }
  return result;
}

/** Bytes and blocks of every view that can be chosen, by its name. */
export function totalsByView(
  report: Report, thread: number | null, window: Window | null,
): Map<string, { bytes: number; blocks: number }> {
  const result = new Map<string, { bytes: number; blocks: number }>();
  if (window === null) {
    for (const [view, column] of report.values.columns) {
      const total = { bytes: 0, blocks: 0 };
      for (let i = 0; i < column.bytes.length; i++) {
        if (thread !== null && report.values.thread[i] !== thread) continue;
        total.bytes += column.bytes[i];
        total.blocks += column.blocks[i];
      }
      result.set(view, total);
    }
    return result;
  }
  const kept = { bytes: 0, blocks: 0 };
  const allocated = { bytes: 0, blocks: 0 };
  const alive = { bytes: 0, blocks: 0 };
  const { lives } = report;
  for (let i = 0; i < lives.node.length; i++) {
    if (lives.birth[i] > window.last || (thread !== null && lives.thread[i] !== thread)) continue;
    const born = lives.birth[i] >= window.first;
    const survives = lives.death[i] > window.last;
    for (const [counts, total] of [[born && survives, kept], [born, allocated], [survives, alive]] as const) {
      if (!counts) continue;
      total.bytes += lives.bytes[i];
      total.blocks += lives.blocks[i];
    }
  }
  return result.set("kept", kept).set("allocated", allocated).set("alive", alive);
}
