// Which modules get a colour of their own: the largest, by allocated memory of the whole run, so that colours stay
// the same while views, threads and windows change.

import type { RunView } from "../format/schema";
import { FLAG_SYNTHETIC, type Report } from "../model/report";
import { moduleOf } from "../model/names";

export const COLOURED_MODULES = 8;

export interface ModuleRank {
  name: string;
  bytes: number;
}

const PREFERENCE: RunView[] = ["peak", "total", "leaks", "temporary"];

/** Modules by self bytes, largest first. */
export function rankModules(report: Report): ModuleRank[] {
  const { frames, tree, values, strings } = report;
  const view = PREFERENCE.find((name) => values.columns.has(name));
  const byFile = new Map<number, number>();
  // Every file takes part, so that a report with little memory still has colours.
  for (let f = 0; f < frames.count; f++) {
    if ((frames.flags[f] & FLAG_SYNTHETIC) === 0) byFile.set(frames.file[f], 0);
  }
  const column = view === undefined ? undefined : values.columns.get(view);
  if (column !== undefined) {
    for (let i = 0; i < values.node.length; i++) {
      const frame = tree.frame[values.node[i]];
      if (values.node[i] === 0 || (frames.flags[frame] & FLAG_SYNTHETIC) !== 0) continue;
      byFile.set(frames.file[frame], (byFile.get(frames.file[frame]) ?? 0) + column.bytes[i]);
    }
  }
  const byModule = new Map<string, number>();
  for (const [file, bytes] of byFile) {
    const name = moduleOf(strings.get(file));
    if (name !== "") byModule.set(name, (byModule.get(name) ?? 0) + bytes);
  }
  return [...byModule]
    .map(([name, bytes]) => ({ name, bytes }))
    .sort((a, b) => b.bytes - a.bytes || (a.name < b.name ? -1 : 1));
}

/** Frame -> colour number, or -1 for "other", or -2 for synthetic. */
export function moduleRanks(report: Report, ranks: ModuleRank[]): Int8Array {
  const { frames, strings } = report;
  const numbers = new Map(ranks.slice(0, COLOURED_MODULES).map((rank, i) => [rank.name, i]));
  const byFile = new Map<number, number>();
  const result = new Int8Array(frames.count);
  for (let f = 0; f < frames.count; f++) {
    if ((frames.flags[f] & FLAG_SYNTHETIC) !== 0) {
      result[f] = -2;
      continue;
    }
    let number = byFile.get(frames.file[f]);
    if (number === undefined) {
      number = numbers.get(moduleOf(strings.get(frames.file[f]))) ?? -1;
      byFile.set(frames.file[f], number);
    }
    result[f] = number;
  }
  return result;
}
