// Which rows count, and what they add up to per tree node.

import type { RunView, WindowView } from "../format/schema";
import type { Report } from "./report";
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

/** Self bytes and blocks per tree node. */
export interface Weights {
  bytes: Float64Array;
  blocks: Float64Array;
}

function fromRows(report: Report, structure: Structure, selection: Selection, into: Weights): void {
  const { values } = report;
  const column = values.columns.get(selection.view);
  if (column === undefined) return;
  const { thread } = selection;
  for (let i = 0; i < values.node.length; i++) {
    if (thread !== null && values.thread[i] !== thread) continue;
    const node = structure.nodeOf[values.node[i]];
    into.bytes[node] += column.bytes[i];
    into.blocks[node] += column.blocks[i];
  }
}

function fromLives(
  report: Report, structure: Structure, selection: Selection, window: Window, into: Weights,
): void {
  const { lives } = report;
  const { thread, windowView } = selection;
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
  }
}

export function selectWeights(report: Report, structure: Structure, selection: Selection): Weights {
  const into = { bytes: new Float64Array(structure.count), blocks: new Float64Array(structure.count) };
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
