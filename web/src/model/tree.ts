// A weighted tree that can be drawn, and the one with callers on top.

import type { Metric } from "../format/schema";
import { addSpread, noSpread, spreadColumns, type Spread, type SpreadColumns } from "./spread";
import type { Structure } from "./structure";
import type { Weights } from "./weights";

export interface FlameTree {
  readonly metric: Metric;
  /** Frame of a node; meaningless for the root, which is node 0. */
  frame(node: number): number;
  parent(node: number): number;
  bytes(node: number): number;
  blocks(node: number): number;
  selfBytes(node: number): number;
  selfBlocks(node: number): number;
  /** How sure bytes and blocks are; null: they are no estimates. */
  spread(node: number): Spread | null;
  selfSpread(node: number): Spread | null;
  /** Total of the metric: what the width shows. */
  width(node: number): number;
  /** Children with a width above 0, widest first. Borrowed: valid as long as the tree. */
  children(node: number): Uint32Array;
}

/** Add every node's value to its callers'. Needs parent < child. */
function totals(structure: Structure, self: Float64Array): Float64Array {
  const total = self.slice();
  for (let n = structure.count - 1; n > 0; n--) total[structure.parent[n]] += total[n];
  return total;
}

function at(columns: SpreadColumns, node: number): Spread {
  const result = noSpread();
  addSpread(result, columns, node);
  return result;
}

export class ForwardTree implements FlameTree {
  private readonly totalBytes: Float64Array;
  private readonly totalBlocks: Float64Array;
  private readonly key: Float64Array;
  private totalSpread: SpreadColumns | null = null; // made when somebody asks
  // Children are put in order when somebody looks at them: a drawing looks at a few thousand of a million.
  private readonly ordered = new Map<number, Uint32Array>();

  constructor(
    readonly structure: Structure,
    readonly self: Weights,
    readonly metric: Metric,
  ) {
    this.totalBytes = totals(structure, self.bytes);
    this.totalBlocks = totals(structure, self.blocks);
    this.key = metric === "bytes" ? this.totalBytes : this.totalBlocks;
  }

  frame(node: number): number {
    return this.structure.frame[node];
  }
  parent(node: number): number {
    return this.structure.parent[node];
  }
  bytes(node: number): number {
    return this.totalBytes[node];
  }
  blocks(node: number): number {
    return this.totalBlocks[node];
  }
  selfBytes(node: number): number {
    return this.self.bytes[node];
  }
  selfBlocks(node: number): number {
    return this.self.blocks[node];
  }
  spread(node: number): Spread | null {
    const own = this.self.spread;
    if (own === null) return null;
    this.totalSpread ??= spreadColumns((field) => totals(this.structure, own[field]));
    return at(this.totalSpread, node);
  }
  selfSpread(node: number): Spread | null {
    return this.self.spread === null ? null : at(this.self.spread, node);
  }
  width(node: number): number {
    return this.key[node];
  }

  children(node: number): Uint32Array {
    let result = this.ordered.get(node);
    if (result === undefined) {
      const { childStart, childList } = this.structure;
      const { key } = this;
      result = childList
        .subarray(childStart[node], childStart[node + 1])
        .filter((child) => key[child] > 0)
        .sort((a, b) => key[b] - key[a] || a - b);
      this.ordered.set(node, result);
    }
    return result;
  }
}
