// Where the zoom is: the way from the whole graph to the zoomed frame, each step a button.

import { useRef, useLayoutEffect } from "preact/hooks";
import { grouped, humanBytes, percent } from "../model/units";
import type { Store } from "../state/store";

/** More steps than this and the middle is left out. */
const MOST = 8;

export function Crumbs({ store }: { store: Store }) {
  const list = useRef<HTMLOListElement>(null);
  const tree = store.tree.value;
  const zoom = store.zoom.value;
  const path = store.crumbs.value;
  const shown = path.length > MOST ? path.slice(path.length - MOST + 1) : path;
  useLayoutEffect(() => {
    // The innermost step matters most: keep it in view.
    if (list.current !== null) list.current.scrollLeft = list.current.scrollWidth;
  }, [zoom, tree]);
  const bytes = tree.metric === "bytes";
  const amount = bytes ? humanBytes(tree.width(zoom)) : `${grouped(tree.width(zoom))} blocks`;
  return (
    <nav class="crumbs" aria-label="Zoom">
      <ol ref={list}>
        <li>
          <button type="button" disabled={zoom === 0} onClick={() => store.resetZoom()}>Whole graph</button>
        </li>
        {shown.length < path.length && <li class="gap">… {path.length - shown.length} frames …</li>}
        {shown.map((node) => (
          <li key={node}>
            <button
              type="button" aria-current={node === zoom ? "location" : undefined} title={store.names.value.full(tree.frame(node))}
              onClick={() => store.zoomTo(node)}
            >
              {store.names.value.func(tree.frame(node))}
            </button>
          </li>
        ))}
      </ol>
      <span class="amount">
        {amount}
        {zoom !== 0 && ` · ${percent(tree.width(zoom), tree.width(0))} of all`}
      </span>
      {zoom !== 0 && <button type="button" class="reset" onClick={() => store.resetZoom()}>Reset zoom</button>}
    </nav>
  );
}
