// How sure estimates are, where the recording has samples only: sums that add up, and the interval that follows.

import type { Metric } from "../format/schema";

const FIELDS = ["samples", "sureBytes", "sureBlocks", "bytes2", "blocks2"] as const;
type Field = (typeof FIELDS)[number];

/** What an estimate rests on: samples; what of it is certain; the variance of the rest. */
export type Spread = Record<Field, number>;
/** The same of many: of rows, of nodes. */
export type SpreadColumns = Record<Field, Float64Array>;

/** Their names in docs/flame-data.md, behind that of the view. */
export const SPREAD_ARRAYS: Record<Field, string> = {
  samples: "samples", sureBytes: "sure_bytes", sureBlocks: "sure_blocks", bytes2: "bytes2", blocks2: "blocks2",
};

function make<T>(value: (field: Field) => T): Record<Field, T> {
  return {
    samples: value("samples"), sureBytes: value("sureBytes"), sureBlocks: value("sureBlocks"),
    bytes2: value("bytes2"), blocks2: value("blocks2"),
  };
}

export const spreadColumns = make;

export function noSpread(): Spread {
  return make(() => 0);
}

export function emptyColumns(count: number): SpreadColumns {
  return make(() => new Float64Array(count));
}

export function addSpread(to: Spread, from: SpreadColumns, at: number): void {
  for (const field of FIELDS) to[field] += from[field][at];
}

/** Adds a part of one element to another: `bytes` and `blocks` are shares, 0 to 1. */
export function addPart(
  to: SpreadColumns, at: number, from: SpreadColumns, i: number, bytes: number, blocks: number,
): void {
  to.samples[at] += from.samples[i] * blocks;
  to.sureBytes[at] += from.sureBytes[i] * bytes;
  to.sureBlocks[at] += from.sureBlocks[i] * blocks;
  to.bytes2[at] += from.bytes2[i] * bytes;
  to.blocks2[at] += from.blocks2[i] * blocks;
}

const Z = 1.959963984540054; // 97.5 % quantile of the normal distribution

/** Wilson and Hilferty (1931): the cube root of a Gamma variable is nearly normal. */
function gammaQuantile(shape: number, z: number): number {
  const root = 1 - 1 / (9 * shape) + z / (3 * Math.sqrt(shape));
  return root <= 0 ? 0 : shape * root ** 3;
}

/** 95 %: as pmt_interval in include/pymemtrace/reader.h. */
export function interval(estimate: number, sure: number, variance: number): [low: number, high: number] {
  const unsure = estimate - sure;
  if (!(unsure > 0) || !(variance > 0)) return [estimate, estimate];
  const count = unsure ** 2 / variance;
  const scale = variance / unsure;
  const low = sure + Math.ceil(gammaQuantile(count + 0.5, -Z) * scale);
  const high = sure + Math.floor(gammaQuantile(count + 0.5, Z) * scale);
  return [Math.min(low, estimate), Math.max(high, estimate)];
}

export function intervalOf(spread: Spread, metric: Metric, estimate: number): [low: number, high: number] {
  return metric === "bytes"
    ? interval(estimate, spread.sureBytes, spread.bytes2)
    : interval(estimate, spread.sureBlocks, spread.blocks2);
}
