import { describe, expect, it } from "vitest";
import { bucketAt, byteStep, shiftWindow, ticks, timeStep, windowBetween } from "../src/layout/axis";
import { boxAt, boxOf, layoutFlame, neighbour, rowOf } from "../src/layout/flame";
import { scrollToRow, visibleRows } from "../src/layout/rows";
import { buildStructure } from "../src/model/structure";
import { ForwardTree } from "../src/model/tree";
import { selectWeights } from "../src/model/weights";
import { Builder } from "./support/builder";
import { synthetic } from "./support/synthetic";

function treeOf(b: Builder): ForwardTree {
  const report = b.report();
  const structure = buildStructure(report, { granularity: "line", hideImport: false, hideInterpreter: false, hideNative: false });
  const weights = selectWeights(report, structure, { view: "peak", windowView: "kept", window: null, thread: null });
  return new ForwardTree(structure, weights, "bytes");
}

function small(): Builder {
  const b = new Builder();
  b.value(b.stack("a"), { peak: [20, 1] });
  b.value(b.stack("a", "b"), { peak: [50, 1] });
  b.value(b.stack("c"), { peak: [30, 1] });
  return b;
}

describe("flame layout", () => {
  it("gives each frame its share of the width", () => {
    const layout = layoutFlame(treeOf(small()), 0, 1000);
    expect(layout.rows).toBe(3);
    expect([...layout.rowStart]).toEqual([0, 1, 3, 4]);
    expect([...layout.left]).toEqual([0, 0, 700, 0]);
    expect([...layout.right]).toEqual([1000, 700, 1000, 500]);
  });

  it("zooms: the zoomed frame spans everything", () => {
    const tree = treeOf(small());
    const a = tree.children(0)[0];
    const layout = layoutFlame(tree, a, 700);
    expect(layout.node[0]).toBe(a);
    expect([...layout.right]).toEqual([700, 500]);
  });

  it("puts what is too narrow into one box", () => {
    const b = new Builder();
    b.value(b.stack("wide"), { peak: [900, 1] });
    for (let i = 0; i < 100; i++) b.value(b.stack(`n${i}`), { peak: [1, 1] });
    const layout = layoutFlame(treeOf(b), 0, 1000, 2);
    expect(layout.rowStart[2] - layout.rowStart[1]).toBe(2);
    expect([...layout.rest]).toEqual([0, 0, 1]);
    expect(layout.node[2]).toBe(0);
    expect(layout.left[2]).toBeCloseTo(900);
    expect(layout.right[2]).toBeCloseTo(1000);
  });

  it("keeps every box within its parent and rows in order, at 20,000 stacks", () => {
    const tree = treeOf(synthetic(20000));
    const layout = layoutFlame(tree, 0, 1200);
    expect(layout.node.length).toBeGreaterThan(300);
    for (let row = 0; row < layout.rows; row++) {
      let end = -1;
      for (let box = layout.rowStart[row]; box < layout.rowStart[row + 1]; box++) {
        expect(layout.left[box]).toBeGreaterThanOrEqual(end - 1e-6);
        end = layout.right[box];
        if (row === 0) continue;
        const up = layout.rest[box] === 1 ? layout.node[box] : tree.parent(layout.node[box]);
        const parent = boxOf(layout, up);
        expect(rowOf(layout, parent)).toBe(row - 1);
        expect(layout.left[box]).toBeGreaterThanOrEqual(layout.left[parent] - 1e-6);
        expect(end).toBeLessThanOrEqual(layout.right[parent] + 1e-6);
      }
      // However many stacks there are, a row has no more boxes than the width allows.
      expect(layout.rowStart[row + 1] - layout.rowStart[row]).toBeLessThan(1200 / 2 + 1200 * 2);
    }
  });

  it("goes as deep as the stacks", () => {
    const b = new Builder();
    b.value(b.stack(...new Array<string>(10000).fill("f")), { peak: [1, 1] });
    expect(layoutFlame(treeOf(b), 0, 100).rows).toBe(10001);
  });

  it("is empty without memory or width", () => {
    expect(layoutFlame(treeOf(new Builder()), 0, 1000).rows).toBe(0);
    expect(layoutFlame(treeOf(small()), 0, 0).rows).toBe(0);
  });

  it("finds the box under a point", () => {
    const layout = layoutFlame(treeOf(small()), 0, 1000);
    expect(boxAt(layout, 0, 5)).toBe(0);
    expect(boxAt(layout, 1, 699)).toBe(1);
    expect(boxAt(layout, 1, 700)).toBe(2);
    expect(boxAt(layout, 2, 499)).toBe(3);
    expect(boxAt(layout, 2, 600)).toBe(-1);
    expect(boxAt(layout, 3, 5)).toBe(-1);
    expect(boxAt(layout, -1, 5)).toBe(-1);
  });

  it("moves by arrow keys", () => {
    const layout = layoutFlame(treeOf(small()), 0, 1000);
    expect(neighbour(layout, 0, "down")).toBe(1);
    expect(neighbour(layout, 1, "right")).toBe(2);
    expect(neighbour(layout, 2, "right")).toBe(2);
    expect(neighbour(layout, 2, "left")).toBe(1);
    expect(neighbour(layout, 1, "down")).toBe(3);
    expect(neighbour(layout, 2, "down")).toBe(2); // c has no callees; b below is another's
    expect(neighbour(layout, 3, "up")).toBe(1);
    expect(neighbour(layout, 0, "up")).toBe(0);
  });
});

describe("axis", () => {
  it("chooses round steps", () => {
    expect([timeStep(90, 10), timeStep(5, 10), timeStep(0.05, 10), timeStep(86400, 10)]).toEqual([10, 0.5, 0.005, 14400]);
    expect([byteStep(300 * 2 ** 20, 4), byteStep(1000, 4), byteStep(3 * 2 ** 30, 4), byteStep(1.7 * 2 ** 20, 4)]).toEqual([
      128 * 2 ** 20, 256, 2 ** 30, 512 * 2 ** 10,
    ]);
    expect(ticks(10, 5)).toEqual([0, 5, 10]);
  });

  it("turns moments into whole buckets", () => {
    const axis = { count: 10, widthS: 2 };
    expect([bucketAt(axis, -1), bucketAt(axis, 3.9), bucketAt(axis, 99)]).toEqual([0, 1, 9]);
    expect(windowBetween(axis, 7, 3)).toEqual({ first: 1, last: 3 });
    expect(windowBetween(axis, 4, 8)).toEqual({ first: 2, last: 3 });
    expect(windowBetween(axis, 5, 5)).toEqual({ first: 2, last: 2 });
  });

  it("moves a window within the axis without changing its length", () => {
    const axis = { count: 10, widthS: 2 };
    expect(shiftWindow(axis, { first: 2, last: 4 }, 3)).toEqual({ first: 5, last: 7 });
    expect(shiftWindow(axis, { first: 2, last: 4 }, 99)).toEqual({ first: 7, last: 9 });
    expect(shiftWindow(axis, { first: 2, last: 4 }, -99)).toEqual({ first: 0, last: 2 });
  });
});

describe("rows in view", () => {
  it("shows what fits and a little more", () => {
    expect(visibleRows(1000, 20, 2000, 100, 2)).toEqual({ from: 98, to: 107 });
    expect(visibleRows(3, 20, 0, 1000)).toEqual({ from: 0, to: 3 });
    expect(visibleRows(0, 20, 500, 100)).toEqual({ from: 0, to: 0 });
  });
  it("scrolls as little as needed", () => {
    expect(scrollToRow(5, 20, 0, 100)).toBe(20);
    expect(scrollToRow(2, 20, 100, 100)).toBe(40);
    expect(scrollToRow(6, 20, 100, 100)).toBe(100);
  });
});
