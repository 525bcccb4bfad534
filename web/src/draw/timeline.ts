// The chart above the graph: heap as an area, RSS as a line, runs of the garbage collector as ticks, marks, the peak,
// and the window.

import { byteStep, ticks, timeStep } from "../layout/axis";
import { clock, humanBytes } from "../model/units";
import type { Report } from "../model/report";
import { SMALL_FONT } from "./canvas";
import type { Palette } from "./palette";

// Above the chart two lines of text: marks, and below them the peak, so that neither hides the other.
export const PAD = { left: 68, right: 14, top: 30, bottom: 20 } as const;
const MARKS_Y = 15;
const PEAK_Y = 30;
const GC_HEIGHT = 6;

export interface TimelineScene {
  report: Report;
  palette: Palette;
  width: number;
  height: number;
  window: { from: number; to: number } | null; // seconds
  hoverT: number | null;
}

export function xOf(t: number, spanS: number, width: number): number {
  return PAD.left + (t / (spanS || 1)) * (width - PAD.left - PAD.right);
}

export function tOf(x: number, spanS: number, width: number): number {
  const share = (x - PAD.left) / Math.max(1, width - PAD.left - PAD.right);
  return Math.min(1, Math.max(0, share)) * spanS;
}

/** Index of the last row at or before `t`, or -1. */
export function rowAt(t: Float64Array, at: number): number {
  let low = 0;
  let high = t.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (t[middle] <= at) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function top(report: Report): number {
  let max = report.header.peakBytes;
  const { rss, heap } = report.timeline;
  for (let i = 0; i < rss.length; i++) {
    if (rss[i] > max) max = rss[i];
    if (heap[i] > max) max = heap[i];
  }
  return max || 1;
}

export function drawTimeline(context: CanvasRenderingContext2D, scene: TimelineScene): void {
  const { report, palette, width, height } = scene;
  const { timeline, spanS } = report;
  const floor = height - PAD.bottom;
  const max = top(report) * 1.06;
  const x = (t: number): number => xOf(t, spanS, width);
  const y = (bytes: number): number => floor - (bytes / max) * (floor - PAD.top);

  context.fillStyle = palette.background;
  context.fillRect(0, 0, width, height);
  context.font = SMALL_FONT;
  context.lineWidth = 1;

  // Grid and axes.
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const value of ticks(max, byteStep(max, 4))) {
    const at = Math.round(y(value)) + 0.5;
    context.fillStyle = palette.grid;
    context.fillRect(PAD.left, at - 0.5, width - PAD.left - PAD.right, 1);
    context.fillStyle = palette.axisText;
    // Steps are whole units: "64.0 MiB" would claim digits that nobody asked for.
    context.fillText(humanBytes(value).replace(/\.0+ /, " "), PAD.left - 8, at);
  }
  context.textBaseline = "top";
  const step = timeStep(spanS, Math.max(2, (width - PAD.left) / 110));
  for (const t of ticks(spanS, step)) {
    const at = Math.round(x(t));
    context.fillStyle = palette.grid;
    context.fillRect(at, floor, 1, 4);
    context.fillStyle = palette.axisText;
    context.textAlign = t === 0 ? "left" : at > width - 40 ? "right" : "center";
    context.fillText(clock(t, step), at, floor + 6);
  }

  drawSeries(context, timeline.t, timeline.heap, x, y, palette.heap, palette.heapFill, floor);
  drawSeries(context, timeline.t, timeline.rss, x, y, palette.rss, null, floor);

  // One tick per row with collections; more collections, darker.
  context.fillStyle = palette.gc;
  for (let i = 0; i < timeline.gc.length; i++) {
    if (timeline.gc[i] === 0) continue;
    context.globalAlpha = Math.min(0.9, 0.25 + timeline.gc[i] / 20);
    context.fillRect(x(timeline.t[i]) - 0.5, floor - GC_HEIGHT, 1.5, GC_HEIGHT);
  }
  context.globalAlpha = 1;

  drawMarks(context, scene, x, floor);
  const { peakTS } = report.header;
  if (peakTS !== null && peakTS <= spanS) {
    const at = x(peakTS);
    context.strokeStyle = palette.peak;
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(at, PEAK_Y - 11);
    context.lineTo(at, floor);
    context.stroke();
    context.setLineDash([]);
    context.fillStyle = palette.peak;
    context.textAlign = at > width - 130 ? "right" : "left";
    context.textBaseline = "bottom";
    context.fillText(`peak ${humanBytes(report.header.peakBytes)}`, at + (at > width - 130 ? -4 : 4), PEAK_Y);
  }

  if (scene.window !== null) drawWindow(context, scene, x, floor);
  if (scene.hoverT !== null) {
    context.fillStyle = palette.axisText;
    context.globalAlpha = 0.6;
    context.fillRect(Math.round(x(scene.hoverT)), PAD.top, 1, floor - PAD.top);
    context.globalAlpha = 1;
  }
}

/** The rows that a line goes through. It passes over unknown values (NaN): the resident memory is known at every flush,
 * but not at the highest points between two, and nearly every pair of flushes can have one. */
export function knownPoints(t: Float64Array, values: Float64Array): number[] {
  const points: number[] = [];
  for (let i = 0; i < t.length; i++) if (!Number.isNaN(values[i])) points.push(i);
  return points;
}

function drawSeries(
  context: CanvasRenderingContext2D, t: Float64Array, values: Float64Array,
  x: (t: number) => number, y: (v: number) => number, stroke: string, fill: string | null, floor: number,
): void {
  const points = knownPoints(t, values);
  if (points.length === 0) return;
  context.beginPath();
  for (const i of points) context.lineTo(x(t[i]), y(values[i]));
  context.strokeStyle = stroke;
  context.lineWidth = 1.5;
  context.stroke();
  if (fill !== null) {
    context.lineTo(x(t[points[points.length - 1]]), floor);
    context.lineTo(x(t[points[0]]), floor);
    context.closePath();
    context.fillStyle = fill;
    context.fill();
  }
  context.lineWidth = 1;
}

function drawMarks(
  context: CanvasRenderingContext2D, scene: TimelineScene, x: (t: number) => number, floor: number,
): void {
  const { report, palette, width } = scene;
  context.textBaseline = "bottom";
  let free = PAD.left; // where the next label may start
  for (const mark of report.marks.slice(0, 500)) {
    const at = x(Math.min(mark.t, report.spanS));
    context.strokeStyle = palette.mark;
    context.globalAlpha = 0.7;
    context.setLineDash([1, 2]);
    context.beginPath();
    context.moveTo(at + 0.5, MARKS_Y - 11);
    context.lineTo(at + 0.5, floor);
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 1;
    const label = mark.label.length > 24 ? `${mark.label.slice(0, 23)}…` : mark.label;
    const labelWidth = context.measureText(label).width;
    if (at < free || at + labelWidth > width - PAD.right) continue;
    context.fillStyle = palette.axisText;
    context.textAlign = "left";
    context.fillText(label, at + 4, MARKS_Y);
    free = at + labelWidth + 10;
  }
}

function drawWindow(
  context: CanvasRenderingContext2D, scene: TimelineScene, x: (t: number) => number, floor: number,
): void {
  const { palette, window } = scene;
  if (window === null) return;
  const from = x(Math.min(window.from, scene.report.spanS));
  const to = x(Math.min(window.to, scene.report.spanS));
  context.fillStyle = palette.windowFill;
  context.fillRect(from, PAD.top, Math.max(1, to - from), floor - PAD.top);
  context.fillStyle = palette.windowEdge;
  for (const edge of [from, to]) {
    context.fillRect(edge - 1, PAD.top, 2, floor - PAD.top);
    context.beginPath();
    context.roundRect(edge - 4, (PAD.top + floor) / 2 - 11, 8, 22, 3);
    context.fill();
  }
}
