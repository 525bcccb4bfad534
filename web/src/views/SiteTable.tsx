// The sites, largest first: as many rows in the page as fit into view, however many there are.

import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { scrollToRow, visibleRows } from "../layout/rows";
import type { Spread } from "../model/spread";
import { grouped, humanBytes, percent } from "../model/units";
import type { Site, SortKey } from "../model/sites";
import type { Store } from "../state/store";
import { palette } from "../state/theme";
import { limits } from "./FrameTip";

const ROW = 38;

const COLUMNS: [SortKey, string, string][] = [
  ["self", "Own", "Allocated by the line itself"],
  ["total", "With callees", "Allocated by the line and everything that it called"],
  ["name", "Site", "Function, file and line"],
];

interface AmountProps {
  part: number;
  whole: number;
  bytes: boolean;
  bar: string;
  spread: Spread | null;
}

function Amount({ part, whole, bytes, bar, spread }: AmountProps) {
  const within = spread === null ? "" : limits(spread, bytes ? "bytes" : "blocks", part);
  const samples = Math.round(spread?.samples ?? 0);
  const title = spread === null ? undefined : `${percent(part, whole)}; 95 %: ${within}; an estimate from ${grouped(samples)} sample${samples === 1 ? "" : "s"}`;
  return (
    <span role="gridcell" class="number" title={title}>
      <i class="bar-fill" aria-hidden="true" style={{ width: `${whole > 0 ? (part / whole) * 100 : 0}%`, background: bar }} />
      <b>{bytes ? humanBytes(part) : grouped(part)}</b>
      <small>{within === "" || within === "sure" ? percent(part, whole) : within}</small>
    </span>
  );
}

function Row({ store, site, index, active }: { store: Store; site: Site; index: number; active: boolean }) {
  const names = store.names.value;
  const bytes = store.metric.value === "bytes";
  const whole = store.forward.value.width(0);
  const p = palette.value;
  const rank = store.moduleRank[site.frame];
  const colour = rank >= 0 ? p.modules[rank] : rank === -1 ? p.other : p.synthetic;
  return (
    <div
      role="row" id={`site-${site.frame}`} aria-rowindex={index + 2} aria-selected={store.picked.value === site.frame}
      class={active ? "row active" : "row"} style={{ top: `${index * ROW}px`, height: `${ROW}px` }}
      onClick={() => store.pick(site.frame)}
    >
      <Amount part={bytes ? site.selfBytes : site.selfBlocks} whole={whole} bytes={bytes} bar={colour} spread={site.selfSpread} />
      <Amount part={bytes ? site.totalBytes : site.totalBlocks} whole={whole} bytes={bytes} bar={colour} spread={site.totalSpread} />
      <span role="gridcell" class="site" title={names.full(site.frame)}>
        <b>{names.func(site.frame)}</b>
        <small>{names.shortPlace(site.frame) || "no file"}</small>
      </span>
    </div>
  );
}

export function SiteTable({ store }: { store: Store }) {
  const body = useRef<HTMLDivElement>(null);
  const scrollTop = useSignal(0);
  const height = useSignal(300);
  const active = useSignal(0);
  const sites = store.sortedSites.value;

  useLayoutEffect(() => {
    const element = body.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => (height.value = element.clientHeight));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    active.value = 0;
    if (body.current !== null) body.current.scrollTop = 0;
  }, [sites]);

  const onKey = (event: KeyboardEvent): void => {
    const page = Math.max(1, Math.floor(height.value / ROW) - 1);
    const steps: Record<string, number> = {
      ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -sites.length, End: sites.length,
    };
    const step = steps[event.key];
    if (step !== undefined) {
      active.value = Math.max(0, Math.min(sites.length - 1, active.value + step));
      const element = body.current;
      if (element !== null) {
        element.scrollTop = scrollToRow(active.value, ROW, element.scrollTop, element.clientHeight);
      }
    } else if ((event.key === "Enter" || event.key === " ") && active.value < sites.length) {
      store.pick(sites[active.value].frame);
    } else {
      return;
    }
    event.preventDefault();
  };

  const range = visibleRows(sites.length, ROW, scrollTop.value, height.value);
  const sorted = store.sortKey.value;
  return (
    <section class="sites" aria-label="Sites">
      <div role="grid" aria-label="Sites" aria-rowcount={sites.length + 1} class="grid">
        <div role="row" class="head" aria-rowindex={1}>
          {COLUMNS.map(([key, label, title]) => (
            <span
              role="columnheader" key={key}
              aria-sort={sorted !== key ? "none" : store.sortDescending.value ? "descending" : "ascending"}
            >
              <button type="button" title={title} onClick={() => store.sortBy(key)}>
                {label}
                <span aria-hidden="true">{sorted !== key ? "" : store.sortDescending.value ? " ▾" : " ▴"}</span>
              </button>
            </span>
          ))}
          <span class="count">{grouped(sites.length)}</span>
        </div>
        <div
          class="body" ref={body} role="rowgroup" tabIndex={0} aria-label="Rows: arrow keys move, Enter highlights in the graph"
          aria-activedescendant={sites.length > 0 ? `site-${sites[Math.min(active.value, sites.length - 1)].frame}` : undefined}
          onScroll={(event) => (scrollTop.value = event.currentTarget.scrollTop)} onKeyDown={onKey}
        >
          <div style={{ height: `${sites.length * ROW}px` }} role="presentation">
            {sites.slice(range.from, range.to).map((site, i) => (
              <Row store={store} site={site} index={range.from + i} active={active.value === range.from + i} key={site.frame} />
            ))}
          </div>
          {sites.length === 0 && (
            <p class="none">{store.searchText.value === "" ? "No sites in this view." : "Nothing matches the search."}</p>
          )}
        </div>
      </div>
    </section>
  );
}
