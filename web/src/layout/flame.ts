// Tree -> boxes, row by row, in units of the drawing's width.
//
// Rows are complete: each row is in order of x, so that finding the box under the pointer is a binary search. Siblings
// come widest first, so everything too narrow to see is at the end of its parent and becomes one box, the *rest*.
// The number of boxes in a row is therefore bounded by the width of the drawing, whatever the size of the tree.

import { Column, Index } from "../model/growable";
import type { FlameTree } from "../model/tree";

/** Narrower than this and a frame is not drawn on its own. */
export const MIN_WIDTH_PX = 2;
/** A drawing with more boxes than this ends there and says so. */
const MAX_BOXES = 2_000_000;

export interface Layout {
  /** Boxes in row order. A rest box holds the parent of what it stands for. */
  node: Uint32Array;
  rest: Uint8Array;
  left: Float64Array;
  right: Float64Array;
  /** Boxes of row r: rowStart[r] .. rowStart[r + 1]. */
  rowStart: Uint32Array;
  rows: number;
  width: number;
  /** Rows were left out at the limit. */
  cut: boolean;
}

export function layoutFlame(tree: FlameTree, zoom: number, width: number, minWidth = MIN_WIDTH_PX): Layout {
  const node = new Index();
  const rest = new Index();
  const left = new Column();
  const right = new Column();
  const rowStart = new Index();
  let cut = false;

  const add = (n: number, isRest: boolean, from: number, to: number): void => {
    node.push(n);
    rest.push(isRest ? 1 : 0);
    left.push(from);
    right.push(to);
  };

  rowStart.push(0);
  const whole = tree.width(zoom);
  if (whole > 0 && width > 0) {
    const scale = width / whole;
    add(zoom, false, 0, width);
    for (let from = 0; from < node.length; ) {
      const to = node.length;
      rowStart.push(to);
      if (to > MAX_BOXES) {
        cut = true;
        break;
      }
      for (let i = from; i < to; i++) {
        if (rest.get(i) === 1) continue;
        const parent = node.get(i);
        let x = left.get(i);
        const children = tree.children(parent);
        for (let c = 0; c < children.length; c++) {
          const next = x + tree.width(children[c]) * scale;
          if (next - x < minWidth) {
            let sum = 0;
            for (let k = c; k < children.length; k++) sum += tree.width(children[k]);
            // A rest that cannot be seen either is left out.
            if (sum * scale >= 0.5) add(parent, true, x, x + sum * scale);
            break;
          }
          add(children[c], false, x, next);
          x = next;
        }
      }
      from = to;
    }
  }
  const rows = rowStart.length - 1;
  return {
    node: node.view(),
    rest: Uint8Array.from(rest.view()),
    left: left.view(),
    right: right.view(),
    rowStart: rowStart.view(),
    rows,
    width,
    cut,
  };
}

/** The box at a point, or -1. */
export function boxAt(layout: Layout, row: number, x: number): number {
  if (row < 0 || row >= layout.rows) return -1;
  let low = layout.rowStart[row];
  let high = layout.rowStart[row + 1];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (layout.right[middle] <= x) low = middle + 1;
    else high = middle;
  }
  return low < layout.rowStart[row + 1] && layout.left[low] <= x ? low : -1;
}

export function rowOf(layout: Layout, box: number): number {
  let low = 0;
  let high = layout.rows;
  while (low < high - 1) {
    const middle = (low + high) >>> 1;
    if (layout.rowStart[middle] <= box) low = middle;
    else high = middle;
  }
  return low;
}

export type Direction = "up" | "down" | "left" | "right";

/** The box that an arrow key leads to; the same one where there is nothing. */
export function neighbour(layout: Layout, box: number, direction: Direction): number {
  const row = rowOf(layout, box);
  if (direction === "left") return box > layout.rowStart[row] ? box - 1 : box;
  if (direction === "right") return box + 1 < layout.rowStart[row + 1] ? box + 1 : box;
  // Boxes are nested: a box's parent spans its middle, and its widest child starts where it starts.
  if (direction === "up") {
    const up = boxAt(layout, row - 1, (layout.left[box] + layout.right[box]) / 2);
    return up < 0 ? box : up;
  }
  if (layout.rest[box] === 1) return box;
  const down = boxAt(layout, row + 1, layout.left[box] + 1e-6);
  return down < 0 || layout.left[down] < layout.left[box] - 1e-6 ? box : down;
}

/** Find a node's box, or -1 when it is not drawn on its own. */
export function boxOf(layout: Layout, node: number): number {
  for (let i = 0; i < layout.node.length; i++) {
    if (layout.node[i] === node && layout.rest[i] === 0) return i;
  }
  return -1;
}
