// The chart above the graph, and the window that is dragged on it.

import { useComputed, useSignal, useSignalEffect } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { prepare } from "../draw/canvas";
import { drawTimeline, rowAt, tOf, xOf } from "../draw/timeline";
import { bucketAt, shiftWindow, windowBetween } from "../layout/axis";
import type { Report } from "../model/report";
import { clock, duration, grouped, humanBytes } from "../model/units";
import type { Store } from "../state/store";
import { palette } from "../state/theme";

const HEIGHT = 142;
const GRIP_PX = 7;

type Drag =
  | { kind: "new" | "edge"; anchorT: number; startX: number }
  | { kind: "move"; startT: number; first: number; last: number };

export function TimelineView({ store }: { store: Store }) {
  const { report } = store;
  const axis = report.header.buckets;
  const canSelect = report.lives.node.length > 0 && axis.count > 0;
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = useSignal(0);
  const hoverT = useSignal<number | null>(null);
  const drag = useRef<Drag | null>(null);
  const seconds = useComputed(() => {
    const w = store.window.value;
    if (w !== null) return { from: w.first * axis.widthS, to: (w.last + 1) * axis.widthS };
    const { stretch } = report.header;
    return stretch === null ? null : { from: stretch.startS, to: stretch.endS };
  });

  useLayoutEffect(() => {
    const box = canvas.current?.parentElement;
    if (box === null || box === undefined) return;
    const observer = new ResizeObserver(() => (width.value = box.clientWidth));
    observer.observe(box);
    width.value = box.clientWidth;
    return () => observer.disconnect();
  }, []);

  useSignalEffect(() => {
    const scene = {
      report, palette: palette.value, width: width.value, height: HEIGHT, window: seconds.value, hoverT: hoverT.value,
    };
    const frame = requestAnimationFrame(() => {
      if (canvas.current === null) return;
      const context = prepare(canvas.current, scene.width, HEIGHT);
      if (context !== null) drawTimeline(context, scene);
    });
    return () => cancelAnimationFrame(frame);
  });

  const xIn = (event: PointerEvent): number => event.clientX - (canvas.current?.getBoundingClientRect().left ?? 0);
  const tAt = (x: number): number => tOf(x, report.spanS, width.value);

  const onDown = (event: PointerEvent): void => {
    if (!canSelect || event.button !== 0) return;
    (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
    const x = xIn(event);
    const w = store.window.value;
    const s = seconds.value;
    if (w !== null && s !== null) {
      const left = xOf(s.from, report.spanS, width.value);
      const right = xOf(s.to, report.spanS, width.value);
      if (Math.abs(x - left) <= GRIP_PX) drag.current = { kind: "edge", anchorT: s.to, startX: x };
      else if (Math.abs(x - right) <= GRIP_PX) drag.current = { kind: "edge", anchorT: s.from, startX: x };
      else if (x > left && x < right) drag.current = { kind: "move", startT: tAt(x), first: w.first, last: w.last };
    }
    drag.current ??= { kind: "new", anchorT: tAt(x), startX: x };
  };

  const onMove = (event: PointerEvent): void => {
    const x = xIn(event);
    hoverT.value = tAt(x);
    const now = drag.current;
    if (now === null) return;
    let next;
    if (now.kind === "move") {
      next = shiftWindow(axis, now, (tAt(x) - now.startT) / axis.widthS);
    } else {
      // A hand that shakes is not a drag.
      if (now.kind === "new" && Math.abs(x - now.startX) < 4) return;
      next = windowBetween(axis, now.anchorT, tAt(x));
    }
    const w = store.window.value;
    if (w === null || w.first !== next.first || w.last !== next.last) store.window.value = next;
  };

  const onUp = (event: PointerEvent): void => {
    const now = drag.current;
    drag.current = null;
    if (now?.kind === "new" && Math.abs(xIn(event) - now.startX) < 4) store.window.value = null;
  };

  return (
    <section class="timeline" aria-label="Timeline">
      <Readout store={store} hoverT={hoverT.value} canSelect={canSelect} />
      <div class="chart">
        <canvas
          ref={canvas} role="img" aria-label={`Memory over ${duration(report.spanS)}: resident memory, traced heap, garbage collections`}
          class={canSelect ? "selectable" : ""} style={{ width: `${width.value}px`, height: `${HEIGHT}px` }}
          onPointerDown={onDown} onPointerMove={onMove} onPointerUp={onUp} onPointerCancel={onUp}
          onPointerLeave={() => (hoverT.value = null)} onDblClick={() => (store.window.value = null)}
        />
        {canSelect && width.value > 0 && (
          <>
            <Edge store={store} end="first" width={width.value} />
            <Edge store={store} end="last" width={width.value} />
          </>
        )}
      </div>
    </section>
  );
}

/** One end of the window for the keyboard. Without a window the ends rest at the ends of the run. */
function Edge({ store, end, width }: { store: Store; end: "first" | "last"; width: number }) {
  const { report } = store;
  const axis = report.header.buckets;
  const window = store.window.value ?? { first: 0, last: axis.count - 1 };
  const t = end === "first" ? window.first * axis.widthS : (window.last + 1) * axis.widthS;
  const onKey = (event: KeyboardEvent): void => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -axis.count, End: axis.count }[event.key];
    if (event.key === "Escape") store.window.value = null;
    else if (step === undefined) return;
    else {
      const moved = bucketAt(axis, (window[end] + step + 0.5) * axis.widthS);
      store.window.value =
        end === "first"
          ? { first: Math.min(moved, window.last), last: window.last }
          : { first: window.first, last: Math.max(moved, window.first) };
    }
    event.preventDefault();
  };
  return (
    <div
      class="edge" role="slider" tabIndex={0} aria-label={end === "first" ? "Start of the time window" : "End of the time window"}
      aria-valuemin={0} aria-valuemax={axis.count - 1} aria-valuenow={window[end]} aria-valuetext={clock(t, axis.widthS)}
      style={{ left: `${xOf(Math.min(t, report.spanS), report.spanS, width)}px` }} onKeyDown={onKey}
    />
  );
}

function windowHint(report: Report, canSelect: boolean): string {
  const { stretch } = report.header;
  if (stretch !== null) {
    const time = (t: number): string => clock(t, Math.min(1, report.spanS / 1000));
    return `This page is of ${time(stretch.startS)} to ${time(stretch.endS)} (${duration(stretch.endS - stretch.startS)}) of the run`;
  }
  return canSelect
    ? "Drag across the chart to select a time window"
    : "No time window in this page (too many stacks or too short a run): pymemtrace flamegraph --from and --to select one";
}

function Readout({ store, hoverT, canSelect }: { store: Store; hoverT: number | null; canSelect: boolean }) {
  const { report } = store;
  const { timeline } = report;
  const step = report.header.buckets.widthS || report.spanS / 1000;
  const row = hoverT === null ? -1 : rowAt(timeline.t, hoverT);
  const value = (v: number): string => (Number.isNaN(v) ? "–" : humanBytes(v));
  const p = palette.value;
  const window = store.window.value;
  return (
    <div class="readout">
      <span class="key"><i style={{ background: p.rss }} />resident (RSS){row >= 0 && <b>{value(timeline.rss[row])}</b>}</span>
      <span class="key"><i style={{ background: p.heap }} />traced heap{row >= 0 && <b>{value(timeline.heap[row])}</b>}</span>
      <span class="key"><i style={{ background: p.gc }} />gc runs{row >= 0 && <b>{grouped(timeline.gc[row])}</b>}</span>
      {hoverT !== null && <span>at {clock(hoverT, Math.min(step, report.spanS / 1000))}</span>}
      <span class="window-state" aria-live="polite">
        {window !== null
          ? `Window: ${clock(window.first * step, step)} to ${clock((window.last + 1) * step, step)} (${duration((window.last - window.first + 1) * step)})`
          : windowHint(report, canSelect)}
      </span>
      {window !== null && <button type="button" onClick={() => (store.window.value = null)}>Clear window</button>}
    </div>
  );
}
