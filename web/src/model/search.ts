// Which frames a search finds, and how much memory the stacks through them hold.

import type { Names } from "./names";
import type { ForwardTree } from "./tree";

export interface Query {
  text: string;
  regex: boolean;
}

export interface Matches {
  /** 1 per matching frame; null when nothing is searched for. */
  frames: Uint8Array | null;
  count: number;
  error: string | null;
}

const NONE: Matches = { frames: null, count: 0, error: null };

/** Search "function file:line" of each frame that `present` marks, ignoring case. */
export function findMatches(names: Names, present: Uint8Array, query: Query): Matches {
  if (query.text === "") return NONE;
  let matches: (text: string) => boolean;
  if (query.regex) {
    let pattern: RegExp;
    try {
      pattern = new RegExp(query.text, "iu");
    } catch {
      return { ...NONE, error: "This is not a valid regular expression." };
    }
    matches = (text) => pattern.test(text);
  } else {
    const needle = query.text.toLowerCase();
    matches = (text) => text.toLowerCase().includes(needle);
  }
  const frames = new Uint8Array(present.length);
  let count = 0;
  for (let f = 0; f < present.length; f++) {
    if (present[f] === 1 && matches(names.full(f))) {
      frames[f] = 1;
      count++;
    }
  }
  return { frames, count, error: null };
}

/** Memory of all stacks that contain a matching frame, each stack counted once. */
export function matchedTotal(tree: ForwardTree, frames: Uint8Array): { bytes: number; blocks: number } {
  const { structure } = tree;
  const inside = new Uint8Array(structure.count);
  let bytes = 0;
  let blocks = 0;
  for (let n = 1; n < structure.count; n++) {
    if (inside[structure.parent[n]] === 1) {
      inside[n] = 1;
    } else if (frames[structure.frame[n]] === 1) {
      inside[n] = 1;
      bytes += tree.bytes(n);
      blocks += tree.blocks(n);
    }
  }
  return { bytes, blocks };
}

/** The frames that occur in a tree with any memory. */
export function presentFrames(tree: ForwardTree, frameCount: number): Uint8Array {
  const present = new Uint8Array(frameCount);
  for (let n = 1; n < tree.structure.count; n++) {
    if (tree.bytes(n) > 0 || tree.blocks(n) > 0) present[tree.structure.frame[n]] = 1;
  }
  return present;
}
