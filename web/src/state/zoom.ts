// The zoomed node as a path of frames, which can be found again in another tree.

import type { FlameTree } from "../model/tree";

/** Nodes from the outermost call to `node`, without the root. */
export function pathOf(tree: FlameTree, node: number): number[] {
  const path: number[] = [];
  for (let n = node; n !== 0; n = tree.parent(n)) path.push(n);
  return path.reverse();
}

/** Follow frames from the root as far as the tree has them. */
export function resolvePath(tree: FlameTree, frames: readonly number[]): number {
  let node = 0;
  for (const frame of frames) {
    const next = tree.children(node).find((child) => tree.frame(child) === frame);
    if (next === undefined) break;
    node = next;
  }
  return node;
}
