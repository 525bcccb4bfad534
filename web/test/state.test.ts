import { describe, expect, it } from "vitest";
import { COLOURED_MODULES } from "../src/state/colours";
import { createStore, type Store } from "../src/state/store";
import { Builder } from "./support/builder";
import { synthetic } from "./support/synthetic";

function job(change: (b: Builder) => void = () => {}): Store {
  const b = new Builder();
  const load = b.frame({ func: "_load", file: "<frozen importlib._bootstrap>", flags: 1 });
  b.value(b.stack("main", "read", "parse"), { peak: [60, 6], leak: [1, 1], total: [90, 9] });
  b.value(b.stack("main", load, "setup"), { peak: [40, 4], total: [40, 4] }, 1);
  b.life(b.stack("main", "read", "parse"), 2, 4, 90, 9);
  change(b);
  return createStore(b.report());
}

const func = (store: Store, node: number): string => store.names.value.func(store.tree.value.frame(node));
const step = (store: Store, ...funcs: string[]): number =>
  funcs.reduce((node, name) => {
    const found = store.tree.value.children(node).find((child) => func(store, child) === name);
    if (found === undefined) throw new Error(`no ${name} here`);
    return found;
  }, 0);

describe("store", () => {
  it("opens as the header says", () => {
    const store = job((b) => Object.assign(b.header, {
      view: "total", inverted: true, metric: "blocks", window: { first: 1, last: 3 }, window_view: "alive", thread: 0,
      hide: ["import", "native"],
    }));
    expect([store.view.value, store.inverted.value, store.metric.value, store.windowView.value, store.thread.value]).toEqual([
      "total", true, "blocks", "alive", 0,
    ]);
    expect(store.window.value).toEqual({ first: 1, last: 3 });
    expect([store.hideImport.value, store.hideInterpreter.value, store.hideNative.value]).toEqual([true, false, true]);
  });

  it("says of a page for a part of the run that it is of that part", () => {
    expect(job().runWords.total.title).toContain("the whole run");
    const store = job((b) => Object.assign(b.header, { stretch: { start_s: 2.001, end_s: 4.003 } }));
    expect(store.runWords.total.title).toContain("this part of the run");
    expect(() => job((b) => Object.assign(b.header, { stretch: { start_s: 4, end_s: 2 } }))).toThrow("stretch");
  });

  it("keeps the zoom when the view changes, as far as the stack exists there", () => {
    const store = job();
    store.zoomTo(step(store, "main", "read", "parse"));
    expect(store.crumbs.value.map((n) => func(store, n))).toEqual(["main", "read", "parse"]);
    store.view.value = "leaks";
    expect(func(store, store.zoom.value)).toBe("parse");
    store.thread.value = 1; // nothing there
    expect(store.zoom.value).toBe(0);
    store.thread.value = null;
    expect(func(store, store.zoom.value)).toBe("parse");
  });

  it("zooms out by one and resets", () => {
    const store = job();
    store.zoomTo(step(store, "main", "read"));
    store.zoomOut();
    expect(func(store, store.zoom.value)).toBe("main");
    store.zoomOut();
    store.zoomOut();
    expect(store.zoom.value).toBe(0);
    store.zoomTo(step(store, "main", "read"));
    store.resetZoom();
    expect(store.zoom.value).toBe(0);
  });

  it("inverts, and the matched share stays the same", () => {
    const store = job();
    store.setSearch("read");
    const before = store.matched.value;
    expect(before).toEqual({ bytes: 60, blocks: 6 });
    store.zoomTo(step(store, "main"));
    store.setInverted(true);
    expect(store.zoom.value).toBe(0);
    expect([...store.tree.value.children(0)].map((n) => func(store, n))).toEqual(["parse", "setup"]);
    expect(store.matched.value).toEqual(before);
  });

  it("filters by window and comes back", () => {
    const store = job();
    store.window.value = { first: 0, last: 1 };
    expect(store.tree.value.width(0)).toBe(0);
    store.window.value = { first: 2, last: 3 };
    expect(store.tree.value.width(0)).toBe(90);
    store.window.value = { first: 2, last: 4 };
    expect(store.tree.value.width(0)).toBe(0); // freed in bucket 4
    store.windowView.value = "allocated";
    expect(store.tree.value.width(0)).toBe(90);
    store.showAll();
    expect(store.tree.value.width(0)).toBe(100);
  });

  it("hides import frames without losing memory", () => {
    const store = job();
    store.hideImport.value = true;
    expect(store.tree.value.width(0)).toBe(100);
    expect(store.tree.value.bytes(step(store, "main", "setup"))).toBe(40);
  });

  it("highlights a picked site until a search takes over", () => {
    const store = job();
    const frame = store.tree.value.frame(step(store, "main", "read"));
    store.pick(frame);
    expect(store.matched.value?.bytes).toBe(60);
    store.setSearch("setup");
    expect(store.picked.value).toBeNull();
    expect(store.matched.value?.bytes).toBe(40);
    store.setSearch("");
    expect(store.highlighted.value).toBeNull();
    store.pick(frame);
    store.pick(frame);
    expect(store.picked.value).toBeNull();
  });

  it("shows in the table what the search finds, and sorts", () => {
    const store = job();
    const names = (): string[] => store.sortedSites.value.map((s) => store.names.value.func(s.frame));
    expect(names().slice(0, 2)).toEqual(["parse", "setup"]);
    store.sortBy("total");
    expect(names()[0]).toBe("main");
    store.sortBy("total");
    expect(names().at(-1)).toBe("main");
    store.sortBy("name");
    expect(names()).toEqual(["_load", "main", "parse", "read", "setup"]);
    store.setSearch("^pa");
    store.searchRegex.value = true;
    expect(names()).toEqual(["parse"]);
  });

  it("offers only views that the data has", () => {
    const b = new Builder();
    b.value(b.stack("main"), { total: [3, 1] });
    const parts = b.parts();
    for (const name of ["peak_bytes", "peak_blocks"]) delete parts.arrays[name];
    b.parts = () => parts;
    expect(createStore(b.report()).view.value).toBe("leaks");
  });

  it("survives a report without anything in it", () => {
    const store = createStore(new Builder().report());
    expect(store.tree.value.width(0)).toBe(0);
    expect(store.sortedSites.value).toEqual([]);
    store.setSearch("x");
    expect(store.search.value.count).toBe(0);
    store.setInverted(true);
    expect(store.tree.value.children(0).length).toBe(0);
  });

  it("gives the largest modules colours of their own", () => {
    const store = createStore(synthetic(3000).report());
    const numbers = new Set(store.moduleRank);
    for (let i = 0; i < COLOURED_MODULES; i++) expect(numbers.has(i)).toBe(true);
    expect(numbers.has(-1)).toBe(true);
    const bytes = store.ranks.map((rank) => rank.bytes);
    expect(bytes).toEqual(bytes.slice().sort((a, b) => b - a));
  });
});
