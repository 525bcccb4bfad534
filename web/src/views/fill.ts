// The colour of a node, as a function that the drawing calls for each box.

import { useComputed, type ReadonlySignal } from "@preact/signals";
import { shareStep } from "../draw/palette";
import type { Store } from "../state/store";
import { palette } from "../state/theme";

export function useFill(store: Store): ReadonlySignal<(node: number) => string> {
  return useComputed(() => {
    const p = palette.value;
    const tree = store.tree.value;
    if (store.colourBy.value === "module") {
      return (node: number): string => {
        const rank = store.moduleRank[tree.frame(node)];
        return rank >= 0 ? p.modules[rank] : rank === -1 ? p.other : p.synthetic;
      };
    }
    // Per frame, not per node: a line that allocates much stands out wherever it appears, in both directions.
    const bytes = store.metric.value === "bytes";
    const own = new Map(store.sites.value.map((site) => [site.frame, bytes ? site.selfBytes : site.selfBlocks]));
    let most = 0;
    for (const value of own.values()) most = Math.max(most, value);
    return (node: number): string => {
      const share = most === 0 ? 0 : (own.get(tree.frame(node)) ?? 0) / most;
      return p.shares[shareStep(share, p.shares.length)];
    };
  });
}
