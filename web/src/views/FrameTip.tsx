// What the pointer or the keyboard is on.

import { useLayoutEffect, useRef } from "preact/hooks";
import { MIN_WIDTH_PX, type Layout } from "../layout/flame";
import { intervalOf, type Spread } from "../model/spread";
import { grouped, humanBytes, limitsOfBlocks, limitsOfBytes, percent } from "../model/units";
import type { Store } from "../state/store";

interface Props {
  store: Store;
  node: number;
  rest: boolean;
  layout: Layout;
  box: number;
  x: number;
  y: number;
}

export function limits(spread: Spread, metric: "bytes" | "blocks", estimate: number): string {
  const bounds = intervalOf(spread, metric, estimate);
  return metric === "bytes" ? limitsOfBytes(estimate, bounds) : limitsOfBlocks(bounds);
}

/** One sentence for screen readers. */
export function spokenFrame(store: Store, node: number): string {
  const tree = store.tree.value;
  const spread = tree.spread(node);
  const within = spread === null ? "" : ` (95 %: ${limits(spread, "bytes", tree.bytes(node))})`;
  const amounts = `${humanBytes(tree.bytes(node))}${within}, ${grouped(tree.blocks(node))} blocks, ${percent(tree.width(node), tree.width(0))} of all`;
  if (node === 0) return `All memory: ${amounts}`;
  const names = store.names.value;
  return `${names.func(tree.frame(node))}, ${names.shortPlace(tree.frame(node))}: ${amounts}`;
}

function Rows({ store, node }: { store: Store; node: number }) {
  const tree = store.tree.value;
  const zoom = store.zoom.value;
  const spread = tree.spread(node);
  const own = tree.selfSpread(node);
  return (
    <table>
      <thead>
        <tr>
          <th /><th>bytes</th>{spread !== null && <th>95 %</th>}
          <th>blocks</th>{spread !== null && <th>95 %</th>}<th>share</th>
        </tr>
      </thead>
      <tbody>
        <tr>
          <th>{store.inverted.value ? "through this" : "with callees"}</th>
          <td><strong>{humanBytes(tree.bytes(node))}</strong></td>
          {spread !== null && <td>{limits(spread, "bytes", tree.bytes(node))}</td>}
          <td>{grouped(tree.blocks(node))}</td>
          {spread !== null && <td>{limits(spread, "blocks", tree.blocks(node))}</td>}
          <td><strong>{percent(tree.width(node), tree.width(0))}</strong></td>
        </tr>
        {!store.inverted.value && (
          <tr>
            <th>itself</th>
            <td>{humanBytes(tree.selfBytes(node))}</td>
            {own !== null && <td>{limits(own, "bytes", tree.selfBytes(node))}</td>}
            <td>{grouped(tree.selfBlocks(node))}</td>
            {own !== null && <td>{limits(own, "blocks", tree.selfBlocks(node))}</td>}
            <td>
              {percent(tree.metric === "bytes" ? tree.selfBytes(node) : tree.selfBlocks(node), tree.width(0))}
            </td>
          </tr>
        )}
        {zoom !== 0 && zoom !== node && (
          <tr><th>of the zoomed</th><td colSpan={spread === null ? 2 : 4} /><td>{percent(tree.width(node), tree.width(zoom))}</td></tr>
        )}
      </tbody>
    </table>
  );
}

function Basis({ spread }: { spread: Spread | null }) {
  if (spread === null) return null;
  const samples = Math.round(spread.samples);
  return <p class="place">an estimate from {grouped(samples)} sample{samples === 1 ? "" : "s"}</p>;
}

function RestRows({ store, node, layout, box }: Props) {
  const tree = store.tree.value;
  const perPixel = tree.width(store.zoom.value) / layout.width;
  const amount = (layout.right[box] - layout.left[box]) * perPixel;
  const count = tree.children(node).filter((child) => tree.width(child) < MIN_WIDTH_PX * perPixel).length;
  return (
    <>
      <p class="func">{grouped(count)} narrow {store.inverted.value ? "callers" : "callees"}</p>
      <p class="place">
        {tree.metric === "bytes" ? humanBytes(amount) : `${grouped(amount)} blocks`} together,{" "}
        {percent(amount, tree.width(0))} of all.{" "}
        {node === store.zoom.value
          ? "Too narrow to draw even here: the table and the search show them."
          : `Click to zoom into their ${store.inverted.value ? "callee" : "caller"}.`}
      </p>
    </>
  );
}

export function FrameTip(props: Props) {
  const element = useRef<HTMLDivElement>(null);
  const { store, node, rest, x, y } = props;
  useLayoutEffect(() => {
    const tip = element.current;
    if (tip === null) return;
    // Beside the pointer, on the side that has room.
    const { width, height } = tip.getBoundingClientRect();
    const left = x + 14 + width > innerWidth ? Math.max(4, x - width - 10) : x + 14;
    const top = y + 18 + height > innerHeight ? Math.max(4, y - height - 12) : y + 18;
    tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  });
  const tree = store.tree.value;
  const names = store.names.value;
  return (
    <div class="tip" ref={element} role="tooltip">
      {rest ? (
        <RestRows {...props} />
      ) : (
        <>
          <p class="func">{node === 0 ? "All memory" : names.func(tree.frame(node))}</p>
          {node !== 0 && <p class="place">{names.place(tree.frame(node)) || "no file"}</p>}
          {node !== 0 && names.library(tree.frame(node)) !== "" && (
            <p class="place">in {names.library(tree.frame(node))}</p>
          )}
          <Rows store={store} node={node} />
          <Basis spread={tree.spread(node)} />
        </>
      )}
    </div>
  );
}
