// The rows of the table: what each frame allocated itself, and what with everything that it called.

import type { Report } from "./report";
import { noSpread, type Spread } from "./spread";
import type { ForwardTree } from "./tree";

export interface Site {
  frame: number;
  selfBytes: number;
  selfBlocks: number;
  totalBytes: number;
  totalBlocks: number;
  /** How sure they are; null: they are no estimates. */
  selfSpread: Spread | null;
  totalSpread: Spread | null;
}

function add(to: Spread | null, spread: Spread | null): void {
  if (to === null || spread === null) return;
  for (const field of Object.keys(to) as (keyof Spread)[]) to[field] += spread[field];
}

export type SortKey = "self" | "total" | "name";

export function collectSites(tree: ForwardTree, frameCount: number): Site[] {
  const { structure } = tree;
  const estimates = tree.self.spread !== null;
  const sites: (Site | undefined)[] = new Array<Site | undefined>(frameCount);
  for (let n = 1; n < structure.count; n++) {
    if (tree.bytes(n) === 0 && tree.blocks(n) === 0) continue;
    const frame = structure.frame[n];
    const site = (sites[frame] ??= {
      frame, selfBytes: 0, selfBlocks: 0, totalBytes: 0, totalBlocks: 0,
      selfSpread: estimates ? noSpread() : null, totalSpread: estimates ? noSpread() : null,
    });
    site.selfBytes += tree.selfBytes(n);
    site.selfBlocks += tree.selfBlocks(n);
    if (estimates) add(site.selfSpread, tree.selfSpread(n));
    if (structure.recursive[n] === 0) {
      site.totalBytes += tree.bytes(n);
      site.totalBlocks += tree.blocks(n);
      if (estimates) add(site.totalSpread, tree.spread(n));
    }
  }
  return sites.filter((site) => site !== undefined);
}

export function sortSites(
  sites: Site[], report: Report, metric: "bytes" | "blocks", key: SortKey, descending: boolean,
): Site[] {
  const sign = descending ? -1 : 1;
  const value: (site: Site) => number =
    key === "self"
      ? (site) => (metric === "bytes" ? site.selfBytes : site.selfBlocks)
      : (site) => (metric === "bytes" ? site.totalBytes : site.totalBlocks);
  if (key === "name") {
    const names = new Map(sites.map((s) => [s.frame, report.strings.get(report.frames.func[s.frame])]));
    return sites.slice().sort((a, b) => {
      const left = names.get(a.frame) ?? "";
      const right = names.get(b.frame) ?? "";
      return sign * (left < right ? -1 : left > right ? 1 : a.frame - b.frame);
    });
  }
  return sites.slice().sort((a, b) => sign * (value(a) - value(b)) || a.frame - b.frame);
}
