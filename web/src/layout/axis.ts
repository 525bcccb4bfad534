// Positions on the time axis, and ticks at round numbers.

const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];

/** A round step that divides `span` into at most `most` parts. */
export function timeStep(span: number, most: number): number {
  const least = span / Math.max(1, most);
  const found = TIME_STEPS.find((step) => step >= least);
  if (least >= 1) return found ?? Math.ceil(least / 86400) * 86400;
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((m) => m * power).find((step) => step >= least * 0.999999) ?? 1;
}

/** A round number of bytes, in binary units, so that `top` takes at most `most` steps. */
export function byteStep(top: number, most: number): number {
  const least = Math.max(1, top / Math.max(1, most));
  let unit = 1;
  while (unit * 1024 <= least) unit *= 1024;
  const step = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512].find((m) => m * unit >= least);
  return step === undefined ? 1024 * unit : step * unit;
}

export function ticks(span: number, step: number): number[] {
  const result: number[] = [];
  for (let i = 0; i * step <= span * 1.000001 && result.length < 200; i++) result.push(i * step);
  return result;
}

export interface BucketAxis {
  count: number;
  widthS: number;
}

/** The bucket at a moment, kept within the axis. */
export function bucketAt(axis: BucketAxis, t: number): number {
  return Math.min(axis.count - 1, Math.max(0, Math.floor(t / axis.widthS)));
}

/** Both ends of a window, put in order. */
export function windowBetween(axis: BucketAxis, t0: number, t1: number): { first: number; last: number } {
  const first = bucketAt(axis, Math.min(t0, t1));
  // An end exactly on a border belongs to the bucket before it.
  const last = bucketAt(axis, Math.max(t0, t1) - axis.widthS * 1e-9);
  return { first, last: Math.max(first, last) };
}

/** Move a window without changing its length, stopping at the ends. */
export function shiftWindow(axis: BucketAxis, window: { first: number; last: number }, by: number) {
  const room = Math.max(-window.first, Math.min(axis.count - 1 - window.last, Math.round(by)));
  return { first: window.first + room, last: window.last + room };
}
