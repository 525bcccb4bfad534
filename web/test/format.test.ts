import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { parseContainer } from "../src/format/container";
import { decodeBase64, gunzip } from "../src/format/embed";
import { DataError, parseHeader } from "../src/format/schema";
import { visible } from "../src/format/strings";
import { readReport } from "../src/model/report";
import { Builder } from "./support/builder";
import { encodeContainer, fillTemplate, type Parts } from "./support/encode";
import { random } from "./support/synthetic";

function sample(): Builder {
  const b = new Builder();
  const inner = b.stack("main", b.frame({ func: "lire_données", file: "/app/é.py", line: 42 }));
  b.value(inner, { peak: [100, 2], total: [300, 6] }).life(inner, 1, 0xffff, 100, 2);
  b.timeline = [{ t: 0, rss: 10, heap: 5, gc: 0 }, { t: 1, rss: NaN, heap: 6, gc: 3 }];
  b.marks = [{ t: 0.5, label: "half" }];
  return b;
}

/** The sample with one thing changed, read. */
function readWith(change: (parts: Parts) => void): () => unknown {
  const parts = sample().parts();
  change(parts);
  return () => readReport(parseContainer(encodeContainer(parts)));
}

describe("container", () => {
  it("gives back what was written", () => {
    const report = sample().report();
    const frame = report.tree.frame[2];
    expect(report.tree.count).toBe(3);
    expect(report.strings.get(report.frames.func[frame])).toBe("lire_données");
    expect(report.strings.get(report.frames.file[frame])).toBe("/app/é.py");
    expect(report.frames.line[frame]).toBe(42);
    expect(report.values.columns.get("peak")?.bytes[0]).toBe(100);
    expect(report.values.columns.get("total")?.blocks[0]).toBe(6);
    expect(report.lives.death[0]).toBe(0xffff);
    expect(report.timeline.gc[1]).toBe(3);
    expect(report.marks).toEqual([{ t: 0.5, label: "half" }]);
    expect(report.spanS).toBe(10);
  });

  it("reads the bytes that the document describes", () => {
    const bytes = sample().container();
    const view = new DataView(bytes.buffer);
    expect(new TextDecoder().decode(bytes.subarray(0, 4))).toBe("PMTF");
    expect(view.getUint32(4, true)).toBe(1);
    const jsonLength = view.getUint32(8, true);
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(12, 12 + jsonLength)));
    const spec = header.arrays.node_parent;
    const area = Math.ceil((12 + jsonLength) / 8) * 8;
    expect(spec.type).toBe("u32");
    expect(view.getUint32(area + spec.offset + 8, true)).toBe(1); // the parent of node 2
  });

  it("refuses a foreign magic and a newer version", () => {
    const bytes = sample().container();
    bytes[4] = 2;
    expect(() => parseContainer(bytes)).toThrow("format version 2");
    bytes[0] = 0x51;
    expect(() => parseContainer(bytes)).toThrow("does not start with PMTF");
    expect(() => parseContainer(new Uint8Array(3))).toThrow("3 bytes");
  });

  it("refuses a header longer than the container", () => {
    const bytes = sample().container();
    new DataView(bytes.buffer).setUint32(8, 0xffffffff, true);
    expect(() => parseContainer(bytes)).toThrow("the header claims 4294967295 bytes");
  });

  it("does not offer groups that are missing", () => {
    const parts = sample().parts();
    for (const name of Object.keys(parts.arrays)) {
      if (/^(temp|life|tl|mark)_/.test(name)) delete parts.arrays[name];
    }
    const report = readReport(parseContainer(encodeContainer(parts)));
    expect([...report.values.columns.keys()]).toEqual(["peak", "leaks", "total"]);
    expect(report.lives.node.length + report.timeline.t.length + report.marks.length).toBe(0);
  });

  it.each<[string, (parts: Parts) => void, string]>([
    ["a parent behind its child", (p) => (p.arrays.node_parent[1] = 2), "node_parent[1] is 2"],
    ["a frame that is not there", (p) => (p.arrays.node_frame[2] = 9), "node_frame[2] is 9"],
    ["a string that is not there", (p) => (p.arrays.frame_file[0] = 999), "frame_file[0] is 999"],
    ["a value of no node", (p) => (p.arrays.val_node[0] = 3), "val_node[0] is 3"],
    ["a negative value", (p) => (p.arrays.peak_bytes[0] = -1), "peak_bytes[0] is -1"],
    ["a value that is no number", (p) => (p.arrays.leak_blocks[0] = NaN), "leak_blocks[0] is NaN"],
    ["a birth behind the axis", (p) => (p.arrays.life_birth[0] = 10), "life_birth[0] is 10"],
    ["a death before the birth", (p) => (p.arrays.life_death[0] = 0), "life_death[0] is 0"],
    ["time running backwards", (p) => (p.arrays.tl_t[0] = 5), "tl_t decreases"],
    ["offsets that decrease", (p) => (p.arrays.string_offsets[1] = 999), "string_offsets decreases"],
    ["no root", (p) => { p.arrays.node_parent = new Uint32Array(0); }, "no root"],
    ["a missing array", (p) => { delete p.arrays.frame_line; }, "frame_line is missing"],
    ["a wrong type", (p) => { p.arrays.frame_line = new Float64Array(2); }, "has type f64, expected u32"],
    ["columns that disagree", (p) => { p.arrays.peak_blocks = new Float64Array(4); }, "peak_blocks has 4 elements, expected 1"],
    ["blocks without their bytes' partner", (p) => { delete p.arrays.peak_blocks; }, "peak_blocks is missing"],
    ["a wrong number of strings", (p) => { p.header.strings_count = 1; }, "expected 2"],
  ])("refuses %s", (_, change, message) => {
    expect(readWith(change)).toThrow(DataError);
    expect(readWith(change)).toThrow(message);
  });

  it("refuses arrays outside the container or out of line", () => {
    const text = (edit: (json: { arrays: Record<string, { offset: number; count: number }> }) => void) => {
      const bytes = sample().container();
      const view = new DataView(bytes.buffer);
      const json = JSON.parse(new TextDecoder().decode(bytes.subarray(12, 12 + view.getUint32(8, true))));
      edit(json);
      const out = new TextEncoder().encode(JSON.stringify(json));
      const result = new Uint8Array(12 + out.length + bytes.length);
      result.set(bytes.subarray(0, 8));
      new DataView(result.buffer).setUint32(8, out.length, true);
      result.set(out, 12);
      return () => readReport(parseContainer(result));
    };
    expect(text((json) => (json.arrays.node_parent.offset = 4))).toThrow("not aligned");
    expect(text((json) => (json.arrays.node_parent.offset = 2 ** 52))).toThrow("ends at byte");
    expect(text((json) => (json.arrays.node_parent.count = 2 ** 32 - 1))).toThrow("ends at byte");
    expect(text((json) => (json.arrays.node_parent.offset = -8))).toThrow("node_parent.offset is not an integer");
  });

  it("answers damage with a DataError or a report, never with another exception", () => {
    const next = random(11);
    const good = sample().container();
    let refused = 0;
    for (let round = 0; round < 4000; round++) {
      const bytes = good.slice(0, next() < 0.2 ? Math.floor(next() * good.length) : good.length);
      for (let k = 1 + Math.floor(next() * 4); k > 0; k--) bytes[Math.floor(next() * bytes.length)] = Math.floor(next() * 256);
      try {
        readReport(parseContainer(bytes));
      } catch (error) {
        expect(error).toBeInstanceOf(DataError);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(1000);
  });
});

describe("header", () => {
  it("keeps what is optional optional", () => {
    const header = parseHeader(JSON.parse(JSON.stringify({ ...sample().header, strings_count: 1, arrays: {} })));
    expect([header.metric, header.window, header.windowView, header.thread, header.hide, header.notes]).toEqual([
      "bytes", null, "kept", null, [], [],
    ]);
  });

  it("reads captures and drops empty reasons", () => {
    const captures = [{ command: ["python", 1], python: "3.13.0", dropped: { full: 3, late: 0 }, folded: 2, duration_s: 1.5 }];
    const header = parseHeader({ ...sample().header, captures, strings_count: 1, arrays: {} });
    expect(header.captures[0]).toMatchObject({
      command: ["python", ""], python: "3.13.0", dropped: [["full", 3]], folded: 2, durationS: 1.5, pid: null,
    });
  });

  it.each([
    [{ view: "peek" }, "view is none of"],
    [{ buckets: { count: 70000, width_s: 1 } }, "buckets.count"],
    [{ buckets: { count: 5, width_s: 0 } }, "width_s is not above 0"],
    [{ threads: [{ id: 0, name: "a" }, { id: 0, name: "b" }] }, "same id"],
    [{ window: { first: 3, last: 10 } }, "outside the buckets"],
    [{ threads: 5 }, "threads is not a list"],
    [{ totals: null }, "totals is not an object"],
  ])("refuses %j", (change, message) => {
    expect(() => parseHeader({ ...sample().header, strings_count: 1, arrays: {}, ...change })).toThrow(message);
  });
});

describe("embedding", () => {
  it("survives the way through base64 and gzip", async () => {
    const bytes = sample().container();
    const text = gzipSync(bytes).toString("base64");
    expect(await gunzip(decodeBase64(text))).toEqual(bytes);
  });

  it("refuses text that is not base64 and bytes that are not gzip", async () => {
    expect(() => decodeBase64("<b>")).toThrow("not base64");
    await expect(gunzip(new Uint8Array([1, 2, 3]))).rejects.toThrow("does not decompress");
    await expect(gunzip(new Uint8Array(gzipSync(new Uint8Array(1000))).slice(0, 12))).rejects.toThrow(DataError);
  });

  it("stops a decompression bomb at its limit", async () => {
    const bomb = new Uint8Array(gzipSync(new Uint8Array(1 << 20)));
    expect(bomb.length).toBeLessThan(2000);
    await expect(gunzip(bomb, 1 << 16)).rejects.toThrow("larger than 65536 bytes");
  });

  it("puts hostile titles and data into the template as text", () => {
    const page = fillTemplate(
      "<title>PYMEMTRACE-TITLE</title><!--PYMEMTRACE-DATA-->", new Uint8Array(9), "</title><script>$&alert(1)</script>",
    );
    expect(page.match(/<script/g)).toHaveLength(1);
    expect(page.match(/<\/title>/g)).toHaveLength(1);
  });
});

describe("visible", () => {
  it("escapes what would change the text around it", () => {
    expect(visible("a\u202eb\nc\u0000d\u2066")).toBe("a\\u202eb\\u000ac\\u0000d\\u2066");
    expect(visible("λ <lambda> 数")).toBe("λ <lambda> 数");
  });
});
