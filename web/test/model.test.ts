import { describe, expect, it } from "vitest";
import { duration, clock, grouped, humanBytes, limitsOfBlocks, limitsOfBytes, percent } from "../src/model/units";
import { InvertedTree } from "../src/model/inverted";
import { baseName, moduleOf, Names } from "../src/model/names";
import type { Report } from "../src/model/report";
import { findMatches, matchedTotal, presentFrames } from "../src/model/search";
import { collectSites, sortSites } from "../src/model/sites";
import { interval } from "../src/model/spread";
import { buildStructure, type Shape } from "../src/model/structure";
import { ForwardTree, type FlameTree } from "../src/model/tree";
import { bytesByThread, selectWeights, totalsByView, type Selection } from "../src/model/weights";
import { Builder } from "./support/builder";
import { random } from "./support/synthetic";

const LINES: Shape = { granularity: "line", hideImport: false, hideInterpreter: false, hideNative: false };
const PEAK: Selection = { view: "peak", windowView: "kept", window: null, thread: null };

function treeOf(report: Report, shape = LINES, selection = PEAK, metric: "bytes" | "blocks" = "bytes"): ForwardTree {
  const structure = buildStructure(report, shape);
  return new ForwardTree(structure, selectWeights(report, structure, selection), metric);
}

/** "a>b": bytes of every path, widest first within each parent. */
function paths(report: Report, tree: FlameTree, node = 0, prefix = ""): [string, number][] {
  return [...tree.children(node)].flatMap((child) => {
    const path = prefix + report.strings.get(report.frames.func[tree.frame(child)]);
    return [[path, tree.bytes(child)] as [string, number], ...paths(report, tree, child, `${path}>`)];
  });
}

function job(): Builder {
  const b = new Builder();
  b.value(b.stack("main", "read"), { peak: [10, 1] });
  b.value(b.stack("main", "read", "parse"), { peak: [30, 5] }, 1);
  b.value(b.stack("main", "write"), { peak: [60, 2] });
  b.value(b.stack("main", "idle"), { total: [5, 1] });
  return b;
}

describe("forward tree", () => {
  it("adds callees to callers, widest first, without what has no memory", () => {
    const report = job().report();
    expect(paths(report, treeOf(report))).toEqual([
      ["main", 100], ["main>write", 60], ["main>read", 40], ["main>read>parse", 30],
    ]);
  });

  it("orders by the chosen metric", () => {
    const report = job().report();
    const tree = treeOf(report, LINES, PEAK, "blocks");
    expect(paths(report, tree).map(([path]) => path)).toEqual(["main", "main>read", "main>read>parse", "main>write"]);
    expect(tree.width(0)).toBe(8);
  });

  it("filters by thread", () => {
    const report = job().report();
    const tree = treeOf(report, LINES, { ...PEAK, thread: 1 });
    expect(paths(report, tree)).toEqual([["main", 30], ["main>read", 30], ["main>read>parse", 30]]);
    expect(bytesByThread(report, "peak")).toEqual(new Map([[0, 70], [1, 30]]));
  });

  it("merges equal siblings that the data did not merge", () => {
    const parts = job().parts();
    parts.arrays.node_parent = Uint32Array.of(0, 0, 1, 0, 3, 3);
    parts.arrays.node_frame = Uint32Array.of(0, 0, 1, 0, 1, 2);
    parts.arrays.val_node = Uint32Array.of(2, 4, 5, 5);
    const b = new Builder();
    b.parts = () => parts;
    const report = b.report();
    expect(paths(report, treeOf(report))).toEqual([["main", 100], ["main>parse", 60], ["main>read", 40]]);
  });
});

describe("estimates", () => {
  function sampled(): Builder {
    const b = new Builder();
    b.value(b.stack("main", "small"), { total: [1000, 100], leak: [400, 40], peak: [500, 50] }, 0, {
      total: [10, 0, 0, 90000, 900], leak: [4, 0, 0, 40000, 400], peak: [5, 0, 0, 50000, 500],
    });
    b.value(b.stack("main", "large"), { total: [9000, 3], leak: [3000, 1], peak: [9000, 3] }, 0, {
      total: [3, 9000, 3, 0, 0], leak: [1, 3000, 1, 0, 0], peak: [3, 9000, 3, 0, 0],
    });
    return b;
  }

  it("has the limits of pmt_interval", () => {
    expect(interval(10000, 0, 10e6)).toEqual([5134, 17740]);
    expect(interval(1010000, 1000000, 10e6)).toEqual([1005134, 1017740]);
    expect(interval(100000, 0, 100e6)).toEqual([81814, 121079]);
    expect(interval(100, 100, 50)).toEqual([100, 100]);
    expect(interval(0, 0, 100)).toEqual([0, 0]);
    expect(interval(1, 0, 1e-300)).toEqual([1, 1]);
  });

  it("writes limits in the unit of the estimate", () => {
    expect(limitsOfBytes(43_200_000, [40_800_000, 45_700_000])).toBe("38.9–43.6");
    expect(limitsOfBytes(500, [400, 1200])).toBe("400–1200");
    expect(limitsOfBytes(5, [5, 5])).toBe("sure");
    expect(limitsOfBlocks([1200, 3400])).toBe("1,200–3,400");
  });

  it("adds what they rest on, in both trees and in the table", () => {
    const report = sampled().report();
    const tree = treeOf(report);
    const all = { samples: 8, sureBytes: 9000, sureBlocks: 3, bytes2: 50000, blocks2: 500 };
    expect(tree.spread(0)).toEqual(all);
    const [main] = tree.children(0);
    expect(tree.spread(main)).toEqual(all);
    expect(tree.selfSpread(main)?.samples).toBe(0);
    const inverted = new InvertedTree(tree, report.frames.count);
    expect(inverted.spread(0)).toEqual(all);
    const small = [...inverted.children(0)].find((node) => inverted.bytes(node) === 500) as number;
    expect(inverted.spread(small)?.bytes2).toBe(50000);
    expect(inverted.spread(inverted.children(small)[0])?.samples).toBe(5);
    const site = collectSites(tree, report.frames.count).find((s) => s.totalBytes === 9500);
    expect(site?.totalSpread).toEqual(all);
    expect(site?.selfSpread?.samples).toBe(0);
  });

  it("gives a time window its part", () => {
    const b = sampled();
    const node = b.stack("main", "small");
    b.life(node, 0, 2, 300, 30).life(node, 4, 5, 300, 30).life(node, 4, 0xffff, 400, 40);
    const report = b.report();
    const window = { first: 4, last: 6 };
    const allocated = treeOf(report, LINES, { ...PEAK, window, windowView: "allocated" });
    expect(allocated.spread(0)?.bytes2).toBeCloseTo(40000 + 25000);
    expect(allocated.spread(0)?.samples).toBeCloseTo(4 + 3);
    const kept = treeOf(report, LINES, { ...PEAK, window, windowView: "kept" });
    expect(kept.spread(0)?.bytes2).toBeCloseTo(40000);
  });

  it("knows none where figures are counts", () => {
    const report = job().report();
    expect(treeOf(report).spread(0)).toBeNull();
    expect(new InvertedTree(treeOf(report), report.frames.count).spread(0)).toBeNull();
    expect(collectSites(treeOf(report), report.frames.count)[0].selfSpread).toBeNull();
  });

  it("refuses arrays of another length or with impossible numbers", () => {
    const wrong = (name: string, array: Float64Array) => () => {
      const b = sampled();
      const parts = b.parts();
      parts.arrays[name] = array;
      b.parts = () => parts;
      return b.report();
    };
    expect(wrong("peak_bytes2", Float64Array.of(1))).toThrow("has 1 elements, expected 2");
    expect(wrong("leak_samples", Float64Array.of(1, -1))).toThrow("leak_samples[1] is -1");
    expect(wrong("total_sure_bytes", Float64Array.of(NaN, 1))).toThrow("total_sure_bytes[0] is NaN");
  });
});

describe("hiding frames", () => {
  it("moves callees of hidden frames to the caller and keeps every byte", () => {
    const b = new Builder();
    const load = b.frame({ func: "_find_and_load", flags: 1 });
    const runpy = b.frame({ func: "_run_code", flags: 2 });
    b.value(b.stack(runpy, "main", load, "module"), { peak: [40, 1] });
    b.value(b.stack(runpy, "main", "module"), { peak: [2, 1] });
    b.value(b.stack(runpy, "main", load), { peak: [7, 1] });
    const report = b.report();
    const all = { ...LINES, hideImport: true, hideInterpreter: true };
    const hidden = treeOf(report, all);
    expect(paths(report, hidden)).toEqual([["main", 49], ["main>module", 42]]);
    expect(hidden.selfBytes(hidden.children(0)[0])).toBe(7);
    expect(paths(report, treeOf(report, { ...LINES, hideImport: true }))[0]).toEqual(["_run_code", 49]);
  });

  it("blames the line of Python for what native functions allocated", () => {
    const b = new Builder();
    const native = b.frame({ func: "grow", file: "/src/x.cc", flags: 8, object: "/usr/lib/libx.so.1" });
    const place = b.frame({ func: "liby.so+0x5", file: "/usr/lib/liby.so", flags: 8, object: "/usr/lib/liby.so" });
    b.value(b.stack("main", native), { peak: [40, 1] }).value(b.stack("main", native, place), { peak: [2, 1] });
    const report = b.report();
    expect(paths(report, treeOf(report, { ...LINES, hideNative: true }))).toEqual([["main", 42]]);
    const names = new Names(report, "line");
    expect([native, place, b.frame({ func: "main" })].map((frame) => names.library(frame))).toEqual(["libx.so.1", "", ""]);
    expect(names.full(native)).toBe("grow /src/x.cc:1 libx.so.1");
  });

  it("merges the lines of a function", () => {
    const b = new Builder();
    const line = (n: number) => b.frame({ func: "f", line: n });
    b.value(b.stack(line(1), "g"), { peak: [1, 1] }).value(b.stack(line(2), "g"), { peak: [2, 1] });
    b.value(b.stack(b.frame({ func: "f", file: "/other.py" }), "g"), { peak: [4, 1] });
    const report = b.report();
    expect(paths(report, treeOf(report, { ...LINES, granularity: "function" }))).toEqual([
      ["f", 4], ["f>g", 4], ["f", 3], ["f>g", 3],
    ]);
  });
});

describe("time window", () => {
  // One node per fate; bytes are powers of two, so that sums tell who is in them.
  const b = new Builder();
  b.life(b.stack("before_gone"), 0, 2, 1);
  b.life(b.stack("before_dies_inside"), 1, 4, 2);
  b.life(b.stack("before_dies_after"), 1, 7, 4);
  b.life(b.stack("inside_gone"), 3, 5, 8);
  b.life(b.stack("inside_kept"), 4, 6, 16);
  b.life(b.stack("inside_forever"), 5, 0xffff, 32);
  b.life(b.stack("after"), 6, 8, 64);
  b.life(b.stack("inside_other_thread"), 3, 0xffff, 128, 1, 1);
  const report = b.report();
  const window = { first: 3, last: 5 };
  const total = (windowView: Selection["windowView"], thread: number | null = null): number =>
    treeOf(report, LINES, { ...PEAK, windowView, window, thread }).bytes(0);

  it("means what the document says", () => {
    expect(total("kept")).toBe(16 + 32 + 128);
    expect(total("allocated")).toBe(8 + 16 + 32 + 128);
    expect(total("alive")).toBe(4 + 16 + 32 + 128);
    expect(total("alive", 0)).toBe(4 + 16 + 32);
  });

  it("shows the same totals on the buttons", () => {
    for (const thread of [null, 0, 1]) {
      const totals = totalsByView(report, thread, window);
      for (const view of ["kept", "allocated", "alive"] as const) {
        expect(totals.get(view)?.bytes).toBe(total(view, thread));
      }
    }
    expect(totalsByView(job().report(), 1, null).get("peak")).toEqual({ bytes: 30, blocks: 5 });
  });
});

describe("inverted tree", () => {
  it("has allocating functions on top and their callers below", () => {
    const b = new Builder();
    b.value(b.stack("main", "a", "alloc"), { peak: [5, 1] });
    b.value(b.stack("main", "b", "alloc"), { peak: [3, 1] });
    b.value(b.stack("main", "a"), { peak: [1, 1] });
    const report = b.report();
    const tree = new InvertedTree(treeOf(report), report.frames.count);
    expect(tree.bytes(0)).toBe(9);
    expect(paths(report, tree)).toEqual([
      ["alloc", 8], ["alloc>a", 5], ["alloc>a>main", 5], ["alloc>b", 3], ["alloc>b>main", 3], ["a", 1], ["a>main", 1],
    ]);
  });

  it("agrees with a naive inversion on random trees", () => {
    for (let seed = 1; seed <= 25; seed++) {
      const next = random(seed);
      const b = new Builder();
      const expected = new Map<string, number>();
      for (let i = 0; i < 60; i++) {
        const stack = Array.from({ length: 1 + Math.floor(next() * 7) }, () => "abcd"[Math.floor(next() * 4)]);
        const bytes = 1 + Math.floor(next() * 50);
        b.value(b.stack(...stack), { peak: [bytes, 1] });
        const up = stack.slice().reverse();
        for (let n = 1; n <= up.length; n++) {
          const key = up.slice(0, n).join(">");
          expected.set(key, (expected.get(key) ?? 0) + bytes);
        }
      }
      const report = b.report();
      const found = paths(report, new InvertedTree(treeOf(report), report.frames.count));
      expect(new Map(found)).toEqual(expected);
      expect(found.length).toBe(expected.size);
    }
  });

  it("expands only what is asked for", () => {
    // A recursion of depth 3,000 that allocates at each level has 4.5 million inverted nodes.
    const b = new Builder();
    const deep: string[] = [];
    for (let i = 0; i < 3000; i++) {
      deep.push("f");
      b.value(b.stack(...deep), { peak: [1, 1] });
    }
    const report = b.report();
    const tree = new InvertedTree(treeOf(report), report.frames.count);
    const [top] = tree.children(0);
    expect(tree.bytes(top)).toBe(3000);
    expect(tree.bytes(tree.children(top)[0])).toBe(2999);
    expect(tree.selfBytes(top)).toBe(1);
  });
});

describe("sites", () => {
  it("counts recursive calls once", () => {
    const b = new Builder();
    b.value(b.stack("f", "g", "f"), { peak: [10, 1] }).value(b.stack("f"), { peak: [1, 1] });
    const report = b.report();
    const sites = collectSites(treeOf(report), report.frames.count);
    const byName = new Map(sites.map((s) => [report.strings.get(report.frames.func[s.frame]), s]));
    expect(byName.get("f")).toMatchObject({ selfBytes: 11, totalBytes: 11, selfBlocks: 2, totalBlocks: 2 });
    expect(byName.get("g")).toMatchObject({ selfBytes: 0, totalBytes: 10 });
  });

  it("sorts by every column both ways", () => {
    const report = job().report();
    const sites = collectSites(treeOf(report), report.frames.count);
    const order = (key: "self" | "total" | "name", descending: boolean): string[] =>
      sortSites(sites, report, "bytes", key, descending).map((s) => report.strings.get(report.frames.func[s.frame]));
    expect(order("self", true)).toEqual(["write", "parse", "read", "main"]);
    expect(order("total", true)).toEqual(["main", "write", "read", "parse"]);
    expect(order("total", false)).toEqual(["parse", "read", "write", "main"]);
    expect(order("name", false)).toEqual(["main", "parse", "read", "write"]);
  });
});

describe("search", () => {
  const report = job().report();
  const tree = treeOf(report);
  const names = new Names(report, "line");
  const present = presentFrames(tree, report.frames.count);
  const find = (text: string, regex = false) => findMatches(names, present, { text, regex });

  it("finds substrings and expressions in function, file and line", () => {
    expect(find("READ").count).toBe(1);
    expect(find("main.py:1").count).toBe(4);
    expect(find("^(read|parse) ", true).count).toBe(2);
    expect(find("nowhere").count).toBe(0);
    expect(find("").frames).toBeNull();
    expect(find("(", false).error).toBeNull();
    expect(find("(", true).error).toMatch("not a valid regular expression");
  });

  it("does not find what the view does not show", () => {
    expect(find("idle").count).toBe(0);
  });

  it("counts each stack once", () => {
    const frames = find("^(main|read|parse) ", true).frames;
    expect(frames).not.toBeNull();
    expect(matchedTotal(tree, frames as Uint8Array)).toEqual({ bytes: 100, blocks: 8 });
    expect(matchedTotal(tree, find("parse").frames as Uint8Array)).toEqual({ bytes: 30, blocks: 5 });
  });
});

describe("names", () => {
  it.each([
    ["/opt/venv/lib/python3.13/site-packages/sqlalchemy/orm/loading.py", "sqlalchemy"],
    ["/usr/lib/python3/dist-packages/yaml.py", "yaml"],
    ["/usr/lib/python3.11/json/decoder.py", "json"],
    ["/usr/lib/python3.13t/csv.py", "csv"],
    ["<frozen importlib._bootstrap>", "importlib"],
    ["<frozen runpy>", "runpy"],
    ["<string>", "<string>"],
    ["/app/jobs/etl.py", "etl"],
    ["", ""],
  ])("%s counts to %s", (file, module) => expect(moduleOf(file)).toBe(module));

  it("shortens paths", () => {
    expect(baseName("/a/b/c.py")).toBe("c.py");
    expect(baseName("/usr/lib/python3.13/collections/__init__.py")).toBe("collections/__init__.py");
    expect(baseName("__main__.py")).toBe("__main__.py");
    expect(baseName("C:\\a\\b.py")).toBe("b.py");
    expect(baseName("<frozen a/b>")).toBe("<frozen a/b>");
  });
});

describe("numbers in words", () => {
  it("formats", () => {
    expect([0, 999, 1023, 1536, 105 * 2 ** 20, 2 ** 40].map(humanBytes)).toEqual([
      "0 B", "999 B", "1.00 KiB", "1.50 KiB", "105 MiB", "1.00 TiB",
    ]);
    expect(grouped(1234567)).toBe("1,234,567");
    expect([percent(1, 3), percent(1, 1e9), percent(0, 5), percent(5, 5), percent(1, 0)]).toEqual([
      "33.3 %", "< 0.01 %", "0 %", "100 %", "0 %",
    ]);
    expect([0.0123, 5, 59.96, 84.2, 7260].map(duration)).toEqual(["12 ms", "5.00 s", "60.0 s", "1 min 24 s", "2 h 1 min"]);
    expect([clock(5, 1), clock(59.5, 0.5), clock(84.25, 1), clock(84.25, 0.25), clock(3725, 1)]).toEqual([
      "5 s", "59.5 s", "1:24", "1:24.3", "1:02:05",
    ]);
  });
});

describe("structure", () => {
  it("takes a tree without repeated siblings as it is, with the same result as by hashing", () => {
    const b = new Builder();
    const next = random(3);
    for (let i = 0; i < 200; i++) {
      const stack = Array.from({ length: 1 + Math.floor(next() * 6) }, () => "abcde"[Math.floor(next() * 5)]);
      b.value(b.stack(...stack), { peak: [1 + i, 1] });
    }
    const report = b.report();
    const direct = buildStructure(report, LINES);
    expect(direct.parent).toBe(report.tree.parent);
    // Hiding a flag that no frame has goes the long way and hides nothing.
    const hashed = buildStructure(report, { ...LINES, hideImport: true });
    expect(hashed.parent).not.toBe(report.tree.parent);
    for (const key of ["count", "parent", "childStart", "childList", "recursive", "nodeOf"] as const) {
      expect(hashed[key], key).toEqual(direct[key]);
    }
  });

  it("knows recursive calls", () => {
    const b = new Builder();
    b.value(b.stack("f", "g", "f", "h"), { peak: [1, 1] }).value(b.stack("h", "f"), { peak: [1, 1] });
    expect([...buildStructure(b.report(), LINES).recursive]).toEqual([0, 0, 0, 1, 0, 0, 0]);
  });
});
