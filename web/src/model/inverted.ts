// The inverted tree: at the top the functions that allocated, below each its callers.
//
// A full inverted tree holds every stack in full, without shared beginnings: 100,000 stacks of depth 1,000 would be
// 100 million nodes. So a node is expanded when somebody asks for its children. A node stands for a group of
// *items*; an item is a stack (its innermost tree node, which has the weight) together with the node on that
// stack which comes next on the way to the root. Expanding groups the items by the frame of that next node.

import type { Metric } from "../format/schema";
import { Column, Index } from "./growable";
import { addSpread, noSpread, type Spread } from "./spread";
import type { ForwardTree, FlameTree } from "./tree";

const NOTHING = new Uint32Array(0);

export class InvertedTree implements FlameTree {
  readonly metric: Metric;
  private readonly nodeFrame = new Index();
  private readonly nodeParent = new Index();
  private readonly nodeBytes = new Column();
  private readonly nodeBlocks = new Column();
  private readonly endBytes = new Column();
  private readonly endBlocks = new Column();
  private readonly itemsFrom = new Index();
  private readonly itemsTo = new Index();
  private readonly itemStack = new Index();
  private readonly itemNext = new Index();
  private readonly expanded = new Map<number, Uint32Array>();
  private readonly counts: Uint32Array; // scratch, per frame; all 0 between calls

  constructor(
    private readonly forward: ForwardTree,
    frameCount: number,
  ) {
    this.metric = forward.metric;
    this.counts = new Uint32Array(frameCount);
    const { bytes, blocks } = forward.self;
    this.addNode(0, 0);
    for (let n = 0; n < forward.structure.count; n++) {
      if (bytes[n] > 0 || blocks[n] > 0) this.addItem(n, n);
    }
    this.itemsTo.set(0, this.itemStack.length);
    this.sum(0);
  }

  frame(node: number): number {
    return this.nodeFrame.get(node);
  }
  parent(node: number): number {
    return this.nodeParent.get(node);
  }
  bytes(node: number): number {
    return this.nodeBytes.get(node);
  }
  blocks(node: number): number {
    return this.nodeBlocks.get(node);
  }
  /** Memory of the stacks that begin here: nothing called this. */
  selfBytes(node: number): number {
    return this.endBytes.get(node);
  }
  selfBlocks(node: number): number {
    return this.endBlocks.get(node);
  }
  spread(node: number): Spread | null {
    return this.sumSpread(node, false);
  }
  selfSpread(node: number): Spread | null {
    return this.sumSpread(node, true);
  }
  width(node: number): number {
    return this.metric === "bytes" ? this.bytes(node) : this.blocks(node);
  }

  children(node: number): Uint32Array {
    let result = this.expanded.get(node);
    if (result === undefined) {
      result = this.expand(node);
      this.expanded.set(node, result);
    }
    return result;
  }

  // Of the few nodes that somebody points at: not kept.
  private sumSpread(node: number, ends: boolean): Spread | null {
    const { spread } = this.forward.self;
    if (spread === null) return null;
    const result = noSpread();
    for (let i = this.itemsFrom.get(node); i < this.itemsTo.get(node); i++) {
      if (!ends || this.itemNext.get(i) === 0) addSpread(result, spread, this.itemStack.get(i));
    }
    return result;
  }

  private addNode(parent: number, frame: number): number {
    this.nodeFrame.push(frame);
    this.nodeBytes.push(0);
    this.nodeBlocks.push(0);
    this.endBytes.push(0);
    this.endBlocks.push(0);
    this.itemsFrom.push(this.itemStack.length);
    this.itemsTo.push(this.itemStack.length);
    return this.nodeParent.push(parent);
  }

  private addItem(stack: number, next: number): void {
    this.itemStack.push(stack);
    this.itemNext.push(next);
  }

  private sum(node: number): void {
    const { bytes, blocks } = this.forward.self;
    for (let i = this.itemsFrom.get(node); i < this.itemsTo.get(node); i++) {
      const stack = this.itemStack.get(i);
      this.nodeBytes.add(node, bytes[stack]);
      this.nodeBlocks.add(node, blocks[stack]);
      if (this.itemNext.get(i) === 0) {
        this.endBytes.add(node, bytes[stack]);
        this.endBlocks.add(node, blocks[stack]);
      }
    }
  }

  private expand(node: number): Uint32Array {
    const { structure } = this.forward;
    const from = this.itemsFrom.get(node);
    const to = this.itemsTo.get(node);

    // Counting sort: how many items per frame, then room for each group, then the items into their group.
    const seen: number[] = [];
    for (let i = from; i < to; i++) {
      const next = this.itemNext.get(i);
      if (next === 0) continue;
      if (this.counts[structure.frame[next]]++ === 0) seen.push(structure.frame[next]);
    }
    if (seen.length === 0) return NOTHING;
    const children = new Uint32Array(seen.length);
    seen.forEach((frame, at) => {
      const child = this.addNode(node, frame);
      children[at] = child;
      for (let k = this.counts[frame]; k > 0; k--) this.addItem(0, 0);
      this.counts[frame] = child;
    });
    for (let i = from; i < to; i++) {
      const next = this.itemNext.get(i);
      if (next === 0) continue;
      const child = this.counts[structure.frame[next]];
      const at = this.itemsTo.get(child);
      this.itemStack.set(at, this.itemStack.get(i));
      this.itemNext.set(at, structure.parent[next]);
      this.itemsTo.set(child, at + 1);
    }
    for (const frame of seen) this.counts[frame] = 0;
    for (const child of children) this.sum(child);
    return children
      .filter((child) => this.width(child) > 0)
      .sort((a, b) => this.width(b) - this.width(a) || a - b);
  }
}
