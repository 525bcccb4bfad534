// The shape of the displayed tree: which stack node is shown as which tree node.
//
// Hiding frames and merging the lines of a function change the shape; views, threads and time windows only change
// the weights. The shape is therefore computed once per pair of settings, and dragging a time window costs two
// passes over arrays, without any hashing.

import { FLAG_IMPORT, FLAG_INTERPRETER, FLAG_NATIVE, type Report } from "./report";

/** Two stack nodes with the same parent are one when their frames agree on this. */
export type Granularity = "line" | "function";

export interface Shape {
  granularity: Granularity;
  hideImport: boolean;
  hideInterpreter: boolean;
  hideNative: boolean;
}

export interface Structure {
  /** Nodes; parent < child, node 0 is the root. */
  count: number;
  parent: Uint32Array;
  /** Canonical frame of each node; undefined for the root. */
  frame: Uint32Array;
  /** Children of n: childList[childStart[n] .. childStart[n + 1]). */
  childStart: Uint32Array;
  childList: Uint32Array;
  /** 1 where an ancestor has the same frame: a recursive call, which per-frame totals must not count again. */
  recursive: Uint8Array;
  /** Stack node -> tree node. Values of a hidden frame belong to its nearest visible caller. */
  nodeOf: Uint32Array;
}

/** Frame -> the frame that stands for it. */
export function canonicalFrames(report: Report, granularity: Granularity): Uint32Array {
  const { frames } = report;
  const canonical = new Uint32Array(frames.count);
  const first = new Map<number, number>();
  const strings = report.strings.count;
  for (let f = 0; f < frames.count; f++) {
    if (granularity === "line") {
      canonical[f] = f;
      continue;
    }
    // Exact below 2^53; string counts beyond 2^26 do not fit into a page anyway.
    const key = frames.func[f] * strings + frames.file[f];
    const known = first.get(key);
    if (known === undefined) first.set(key, f);
    canonical[f] = known ?? f;
  }
  return canonical;
}

function childLists(count: number, parent: Uint32Array): Pick<Structure, "childStart" | "childList"> {
  const childStart = new Uint32Array(count + 1);
  for (let n = 1; n < count; n++) childStart[parent[n] + 1]++;
  for (let n = 0; n < count; n++) childStart[n + 1] += childStart[n];
  const next = childStart.slice();
  const childList = new Uint32Array(Math.max(0, count - 1));
  for (let n = 1; n < count; n++) childList[next[parent[n]]++] = n;
  return { childStart, childList };
}

function findRecursive(tree: Omit<Structure, "recursive" | "nodeOf">, frames: number): Uint8Array {
  const recursive = new Uint8Array(tree.count);
  const open = new Uint32Array(frames); // how often each frame is on the current path
  const stack = new Uint32Array(tree.count);
  const cursor = tree.childStart.slice(0, tree.count);
  let depth = 1; // the root is on the path
  while (depth > 0) {
    const n = stack[depth - 1];
    if (cursor[n] < tree.childStart[n + 1]) {
      const child = tree.childList[cursor[n]++];
      const frame = tree.frame[child];
      recursive[child] = open[frame] > 0 ? 1 : 0;
      open[frame]++;
      stack[depth++] = child;
    } else {
      if (n !== 0) open[tree.frame[n]]--;
      depth--;
    }
  }
  return recursive;
}

/** Whether no two children of a node have the same frame. */
function isUnique(tree: Pick<Structure, "count" | "frame" | "childStart" | "childList">, frames: number): boolean {
  const lastParent = new Uint32Array(frames).fill(0xffffffff);
  for (let n = 0; n < tree.count; n++) {
    for (let c = tree.childStart[n]; c < tree.childStart[n + 1]; c++) {
      const frame = tree.frame[tree.childList[c]];
      if (lastParent[frame] === n) return false;
      lastParent[frame] = n;
    }
  }
  return true;
}

/** The stack tree itself, when nothing is hidden or merged; null when the data repeats a sibling. */
function unchanged(report: Report): Structure | null {
  const { tree, frames } = report;
  const shape = { ...tree, ...childLists(tree.count, tree.parent) };
  if (!isUnique(shape, frames.count)) return null;
  const nodeOf = new Uint32Array(tree.count);
  for (let n = 0; n < tree.count; n++) nodeOf[n] = n;
  return { ...shape, recursive: findRecursive(shape, frames.count), nodeOf };
}

export function buildStructure(report: Report, shape: Shape): Structure {
  const { tree, frames } = report;
  const canonical = canonicalFrames(report, shape.granularity);
  const hidden =
    (shape.hideImport ? FLAG_IMPORT : 0) |
    (shape.hideInterpreter ? FLAG_INTERPRETER : 0) |
    (shape.hideNative ? FLAG_NATIVE : 0);
  if (hidden === 0 && shape.granularity === "line") {
    // How most reports open: worth not hashing half a million nodes.
    const same = unchanged(report);
    if (same !== null) return same;
  }

  const parent = new Uint32Array(tree.count);
  const frame = new Uint32Array(tree.count);
  const nodeOf = new Uint32Array(tree.count);
  let count = 1;

  // Open addressing on (parent, frame); at most half full. Slots hold node ids, 0 is free.
  let size = 16;
  while (size < tree.count * 2) size *= 2;
  const slots = new Uint32Array(size);
  const mask = size - 1;

  for (let i = 1; i < tree.count; i++) {
    const up = nodeOf[tree.parent[i]];
    const f = tree.frame[i];
    if ((frames.flags[f] & hidden) !== 0) {
      nodeOf[i] = up;
      continue;
    }
    const key = canonical[f];
    let slot = Math.imul(Math.imul(up, 0x9e3779b1) ^ key, 0x85ebca6b);
    slot = (slot ^ (slot >>> 15)) & mask;
    let node = slots[slot];
    while (node !== 0 && (parent[node] !== up || frame[node] !== key)) {
      slot = (slot + 1) & mask;
      node = slots[slot];
    }
    if (node === 0) {
      node = count++;
      parent[node] = up;
      frame[node] = key;
      slots[slot] = node;
    }
    nodeOf[i] = node;
  }

  const shapeOnly = {
    count,
    parent: parent.slice(0, count),
    frame: frame.slice(0, count),
    ...childLists(count, parent),
  };
  return { ...shapeOnly, recursive: findRecursive(shapeOnly, frames.count), nodeOf };
}
