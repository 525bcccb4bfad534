// Builds reports from stacks written as text, and containers from them.

import { parseContainer } from "../../src/format/container";
import { readReport, type Report } from "../../src/model/report";
import { encodeContainer, type Parts } from "./encode";

export interface FrameSpec {
  func: string;
  file?: string;
  line?: number;
  flags?: number;
  object?: string;
}

type Amounts = Partial<Record<"peak" | "leak" | "total" | "temp", [bytes: number, blocks: number]>>;

type Views = "peak" | "leak" | "total";
/** samples, sure bytes, sure blocks, bytes², blocks² */
type Spreads = Partial<Record<Views, [number, number, number, number, number]>>;
const SPREAD_NAMES = ["samples", "sure_bytes", "sure_blocks", "bytes2", "blocks2"];

export class Builder {
  private readonly strings = new Map<string, number>([["", 0]]);
  private readonly frames: { key: string; func: number; file: number; line: number; flags: number; object: number }[] = [];
  private readonly frameIds = new Map<string, number>();
  private readonly children: Map<number, number>[] = [new Map()];
  private readonly parent = [0];
  private readonly nodeFrame = [0];
  private readonly values: { node: number; thread: number; amounts: Amounts; spreads: Spreads | null }[] = [];
  private readonly lives: { node: number; thread: number; birth: number; death: number; bytes: number; blocks: number }[] = [];
  timeline: { t: number; rss: number; heap: number; gc: number }[] = [];
  marks: { t: number; label: string }[] = [];
  header: Record<string, unknown> = {
    title: "test",
    captures: [],
    view: "peak",
    inverted: false,
    t_start: "2026-03-01T12:00:00+00:00",
    buckets: { count: 10, width_s: 1 },
    threads: [{ id: 0, name: "MainThread" }, { id: 1, name: "worker" }],
    totals: { peak_bytes: 0, peak_t_s: null },
  };

  string(text: string): number {
    let id = this.strings.get(text);
    if (id === undefined) this.strings.set(text, (id = this.strings.size));
    return id;
  }

  frame(spec: FrameSpec): number {
    const { func, file = "/app/main.py", line = 1, flags = 0, object = "" } = spec;
    const key = JSON.stringify([func, file, line, flags, object]);
    let id = this.frameIds.get(key);
    if (id === undefined) {
      id = this.frames.length;
      this.frames.push({
        key, func: this.string(func), file: this.string(file), line, flags, object: this.string(object),
      });
      this.frameIds.set(key, id);
    }
    return id;
  }

  /** A stack, outermost first -> its node. Stacks share their beginnings. */
  stack(...frames: (number | string)[]): number {
    let node = 0;
    for (const item of frames) {
      const frame = typeof item === "string" ? this.frame({ func: item }) : item;
      let next = this.children[node].get(frame);
      if (next === undefined) {
        next = this.parent.length;
        this.parent.push(node);
        this.nodeFrame.push(frame);
        this.children.push(new Map());
        this.children[node].set(frame, next);
      }
      node = next;
    }
    return node;
  }

  value(node: number, amounts: Amounts, thread = 0, spreads: Spreads | null = null): this {
    this.values.push({ node, thread, amounts, spreads });
    return this;
  }

  /** Of estimates, the arrays that say how sure they are; and no temporaries, which samples do not tell. */
  private spreads(): Parts["arrays"] {
    if (this.values.every((row) => row.spreads === null)) return {};
    const names = (["peak", "leak", "total"] as const).flatMap((view) =>
      SPREAD_NAMES.map((name, at) => [view, name, at] as const),
    );
    return Object.fromEntries(
      names.map(([view, name, at]) => [
        `${view}_${name}`, Float64Array.from(this.values, (row) => row.spreads?.[view]?.[at] ?? 0),
      ]),
    );
  }

  life(node: number, birth: number, death: number, bytes: number, blocks = 1, thread = 0): this {
    this.lives.push({ node, thread, birth, death, bytes, blocks });
    return this;
  }

  parts(): Parts {
    const encoder = new TextEncoder();
    const labels = this.marks.map((mark) => this.string(mark.label));
    const texts = [...this.strings.keys()].map((text) => encoder.encode(text));
    const offsets = new Uint32Array(texts.length + 1);
    texts.forEach((text, i) => (offsets[i + 1] = offsets[i] + text.length));
    const bytes = new Uint8Array(offsets[texts.length]);
    texts.forEach((text, i) => bytes.set(text, offsets[i]));
    const column = (name: keyof Amounts, at: 0 | 1): Float64Array =>
      Float64Array.from(this.values, (row) => row.amounts[name]?.[at] ?? 0);
    return {
      header: { ...this.header, strings_count: texts.length },
      arrays: {
        string_offsets: offsets,
        string_bytes: bytes,
        frame_function: Uint32Array.from(this.frames, (f) => f.func),
        frame_file: Uint32Array.from(this.frames, (f) => f.file),
        frame_line: Uint32Array.from(this.frames, (f) => f.line),
        frame_flags: Uint8Array.from(this.frames, (f) => f.flags),
        frame_object: this.frames.some((f) => (f.flags & 8) !== 0)
          ? Uint32Array.from(this.frames, (f) => f.object)
          : new Uint32Array(0),
        node_parent: Uint32Array.from(this.parent),
        node_frame: Uint32Array.from(this.nodeFrame),
        val_node: Uint32Array.from(this.values, (row) => row.node),
        val_thread: Uint16Array.from(this.values, (row) => row.thread),
        peak_bytes: column("peak", 0),
        peak_blocks: column("peak", 1),
        leak_bytes: column("leak", 0),
        leak_blocks: column("leak", 1),
        total_bytes: column("total", 0),
        total_blocks: column("total", 1),
        temp_bytes: column("temp", 0),
        temp_blocks: column("temp", 1),
        ...this.spreads(),
        life_node: Uint32Array.from(this.lives, (row) => row.node),
        life_thread: Uint16Array.from(this.lives, (row) => row.thread),
        life_birth: Uint16Array.from(this.lives, (row) => row.birth),
        life_death: Uint16Array.from(this.lives, (row) => row.death),
        life_bytes: Float64Array.from(this.lives, (row) => row.bytes),
        life_blocks: Float64Array.from(this.lives, (row) => row.blocks),
        tl_t: Float64Array.from(this.timeline, (row) => row.t),
        tl_rss: Float64Array.from(this.timeline, (row) => row.rss),
        tl_heap: Float64Array.from(this.timeline, (row) => row.heap),
        tl_gc: Uint32Array.from(this.timeline, (row) => row.gc),
        mark_t: Float64Array.from(this.marks, (mark) => mark.t),
        mark_label: Uint32Array.from(labels),
      },
    };
  }

  container(): Uint8Array<ArrayBuffer> {
    return encodeContainer(this.parts());
  }

  report(): Report {
    return readReport(parseContainer(this.container()));
  }
}
