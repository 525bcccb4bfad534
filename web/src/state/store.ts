// All state of the page, and everything computed from it. Views read signals and call actions; nothing here knows
// about the screen.

import { batch, computed, signal } from "@preact/signals";
import type { Metric, RunView, WindowView } from "../format/schema";
import { InvertedTree } from "../model/inverted";
import { Names } from "../model/names";
import type { Report } from "../model/report";
import { findMatches, matchedTotal, presentFrames } from "../model/search";
import { collectSites, sortSites, type SortKey } from "../model/sites";
import { buildStructure, type Granularity } from "../model/structure";
import { ForwardTree, type FlameTree } from "../model/tree";
import { selectWeights, type Window } from "../model/weights";
import { moduleRanks, rankModules } from "./colours";
import { RUN_WORDS, STRETCH_WORDS } from "./words";
import { pathOf, resolvePath } from "./zoom";

export type ColourBy = "module" | "share";

export function createStore(report: Report) {
  const { header } = report;
  const offered = report.values.columns;
  const firstView: RunView = offered.has(header.view) ? header.view : ([...offered.keys()][0] ?? header.view);

  const view = signal<RunView>(firstView);
  const windowView = signal<WindowView>(header.windowView);
  const window = signal<Window | null>(report.lives.node.length > 0 ? header.window : null);
  const thread = signal<number | null>(header.thread);
  const metric = signal<Metric>(header.metric);
  const inverted = signal(header.inverted);
  const hideImport = signal(header.hide.includes("import"));
  const hideInterpreter = signal(header.hide.includes("interpreter"));
  const hideNative = signal(header.hide.includes("native"));
  const granularity = signal<Granularity>("line");
  const colourBy = signal<ColourBy>("module");
  const searchText = signal("");
  const searchRegex = signal(false);
  /** Frame chosen in the table: highlighted like a match. */
  const picked = signal<number | null>(null);
  const sortKey = signal<SortKey>("self");
  const sortDescending = signal(true);
  const tableShown = signal(true);
  /** Frames from the outermost zoomed one inwards; survives changes of view because frames do. */
  const zoomPath = signal<number[]>([]);

  const names = computed(() => new Names(report, granularity.value));
  const structure = computed(() =>
    buildStructure(report, {
      granularity: granularity.value,
      hideImport: hideImport.value,
      hideInterpreter: hideInterpreter.value,
      hideNative: hideNative.value,
    }),
  );
  const weights = computed(() =>
    selectWeights(report, structure.value, {
      view: view.value,
      windowView: windowView.value,
      window: window.value,
      thread: thread.value,
    }),
  );
  const forward = computed(() => new ForwardTree(structure.value, weights.value, metric.value));
  const tree = computed<FlameTree>(() =>
    inverted.value ? new InvertedTree(forward.value, report.frames.count) : forward.value,
  );
  const zoom = computed(() => resolvePath(tree.value, zoomPath.value));
  const crumbs = computed(() => pathOf(tree.value, zoom.value));

  const present = computed(() => presentFrames(forward.value, report.frames.count));
  const search = computed(() =>
    findMatches(names.value, present.value, { text: searchText.value, regex: searchRegex.value }),
  );
  const highlighted = computed<Uint8Array | null>(() => {
    if (search.value.frames !== null) return search.value.frames;
    if (picked.value === null) return null;
    const only = new Uint8Array(report.frames.count);
    only[picked.value] = 1;
    return only;
  });
  const matched = computed(() =>
    highlighted.value === null ? null : matchedTotal(forward.value, highlighted.value),
  );
  const sites = computed(() => collectSites(forward.value, report.frames.count));
  const sortedSites = computed(() => {
    const frames = search.value.frames;
    const shown = frames === null ? sites.value : sites.value.filter((site) => frames[site.frame] === 1);
    return sortSites(shown, report, metric.value, sortKey.value, sortDescending.value);
  });
  const ranks = rankModules(report);

  return {
    report,
    view, windowView, window, thread, metric, inverted, hideImport, hideInterpreter, hideNative, granularity, colourBy,
    searchText, searchRegex, picked, sortKey, sortDescending, tableShown, zoomPath,
    names, structure, forward, tree, zoom, crumbs, search, highlighted, matched, sites, sortedSites,
    ranks, moduleRank: moduleRanks(report, ranks),
    runWords: header.stretch === null ? RUN_WORDS : STRETCH_WORDS,

    zoomTo(node: number): void {
      zoomPath.value = pathOf(tree.value, node).map((n) => tree.value.frame(n));
    },
    zoomOut(): void {
      if (zoomPath.value.length > 0) zoomPath.value = crumbs.value.slice(0, -1).map((n) => tree.value.frame(n));
    },
    resetZoom(): void {
      zoomPath.value = [];
    },
    setInverted(value: boolean): void {
      // A path from the root means nothing from the leaf.
      if (value === inverted.value) return;
      batch(() => {
        zoomPath.value = [];
        inverted.value = value;
      });
    },
    setGranularity(value: Granularity): void {
      // Frames stand for other things now.
      batch(() => {
        zoomPath.value = [];
        picked.value = null;
        granularity.value = value;
      });
    },
    setSearch(text: string): void {
      batch(() => {
        searchText.value = text;
        picked.value = null;
      });
    },
    pick(frame: number): void {
      picked.value = picked.value === frame ? null : frame;
    },
    sortBy(key: SortKey): void {
      batch(() => {
        sortDescending.value = sortKey.value === key ? !sortDescending.value : key !== "name";
        sortKey.value = key;
      });
    },
    showAll(): void {
      batch(() => {
        window.value = null;
        thread.value = null;
        zoomPath.value = [];
        searchText.value = "";
        picked.value = null;
      });
    },
  };
}

export type Store = ReturnType<typeof createStore>;
