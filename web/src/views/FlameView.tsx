// The graph: a canvas that stays in view while an empty element of the full height scrolls behind it.

import { useComputed, useSignal, useSignalEffect } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { prepare } from "../draw/canvas";
import { drawFlame, ROW_HEIGHT } from "../draw/flame";
import { boxAt, boxOf, layoutFlame, neighbour, rowOf, type Direction } from "../layout/flame";
import { scrollToRow } from "../layout/rows";
import type { Store } from "../state/store";
import { palette } from "../state/theme";
import { NothingSelected } from "./Empty";
import { useFill } from "./fill";
import { FrameTip, spokenFrame } from "./FrameTip";

const ARROWS: Record<string, Direction> = {
  ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right",
};

export function FlameView({ store }: { store: Store }) {
  const scroller = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const size = useSignal({ width: 0, height: 0 });
  const scrollTop = useSignal(0);
  const hover = useSignal<{ box: number; x: number; y: number } | null>(null);
  const focusNode = useSignal<number | null>(null);
  const hasFocus = useSignal(false);

  const layout = useComputed(() => layoutFlame(store.tree.value, store.zoom.value, size.value.width));
  const focus = useComputed(() => (focusNode.value === null ? -1 : boxOf(layout.value, focusNode.value)));
  const fill = useFill(store);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const measure = (): void => {
      size.value = { width: element.clientWidth, height: element.clientHeight };
    };
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);

  // A new drawing starts at its top; boxes have new numbers.
  useSignalEffect(() => {
    void store.tree.value;
    void store.zoom.value;
    hover.value = null;
    focusNode.value = null;
    if (scroller.current !== null) scroller.current.scrollTop = 0;
  });

  useSignalEffect(() => {
    const scene = {
      layout: layout.value,
      tree: store.tree.value,
      names: store.names.value,
      palette: palette.value,
      fill: fill.value,
      matches: store.highlighted.value,
      focus: hasFocus.value ? focus.value : -1,
      hover: hover.value?.box ?? -1,
      rootLabel: store.inverted.value ? "all memory, by allocating function" : "all memory",
      scrollTop: scrollTop.value,
      height: size.value.height,
    };
    const frame = requestAnimationFrame(() => {
      if (canvas.current === null) return;
      const context = prepare(canvas.current, scene.layout.width, scene.height);
      if (context !== null) drawFlame(context, scene);
    });
    return () => cancelAnimationFrame(frame);
  });

  const boxUnder = (event: MouseEvent): number => {
    const rect = canvas.current?.getBoundingClientRect();
    if (rect === undefined) return -1;
    const row = Math.floor((event.clientY - rect.top + scrollTop.value) / ROW_HEIGHT);
    return boxAt(layout.value, row, event.clientX - rect.left);
  };

  const activate = (box: number): void => {
    if (box < 0) return;
    const node = layout.value.node[box];
    // The zoomed frame itself is the way back out.
    if (node === store.zoom.value && layout.value.rest[box] === 0) store.zoomOut();
    else store.zoomTo(node);
  };

  const onKey = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const direction = ARROWS[event.key];
    if (direction !== undefined) {
      if (layout.value.rows === 0) return;
      const from = Math.max(0, focus.value);
      let box = neighbour(layout.value, from, direction);
      // The rest has no frame to stand on.
      if (layout.value.rest[box] === 1) box = from;
      // After a click the element has the focus without showing it: the first key does.
      hasFocus.value = true;
      focusNode.value = layout.value.node[box];
      hover.value = null;
      const element = scroller.current;
      if (element !== null) {
        element.scrollTop = scrollToRow(
          rowOf(layout.value, box), ROW_HEIGHT, element.scrollTop, element.clientHeight,
        );
      }
    } else if (event.key === "Enter" || event.key === " ") {
      const frameNode = focus.value < 0 ? 0 : layout.value.node[focus.value];
      activate(focus.value);
      focusNode.value = frameNode === store.zoom.value ? frameNode : store.zoom.value;
    } else if (event.key === "Escape" || event.key === "Backspace") {
      store.zoomOut();
      focusNode.value = store.zoom.value;
    } else if (event.key === "Home") {
      store.resetZoom();
      focusNode.value = 0;
    } else {
      return;
    }
    event.preventDefault();
  };

  const onFocus = (event: FocusEvent): void => {
    // Only the keyboard needs to see where it is: a click already shows it.
    hasFocus.value = (event.currentTarget as HTMLElement).matches(":focus-visible");
    if (focusNode.value === null) focusNode.value = store.zoom.value;
  };

  const empty = store.tree.value.width(0) <= 0;
  const tip = hover.value ?? focusTip();
  function focusTip(): { box: number; x: number; y: number } | null {
    if (!hasFocus.value || focus.value < 0 || canvas.current === null) return null;
    const rect = canvas.current.getBoundingClientRect();
    const box = focus.value;
    const y = rect.top + (rowOf(layout.value, box) + 1) * ROW_HEIGHT - scrollTop.value;
    return { box, x: rect.left + layout.value.left[box], y };
  }

  return (
    <div class="flame">
      <div
        class="scroller" ref={scroller} tabIndex={0} role="application" aria-roledescription="flame graph"
        aria-label="Flame graph: arrow keys move between frames, Enter zooms in, Escape zooms out"
        aria-describedby="frame-spoken"
        onScroll={(event) => {
          scrollTop.value = event.currentTarget.scrollTop;
          hover.value = null;
        }}
        onKeyDown={onKey}
        onFocus={onFocus}
        onBlur={() => (hasFocus.value = false)}
        onMouseMove={(event) => {
          const box = boxUnder(event);
          hover.value = box < 0 ? null : { box, x: event.clientX, y: event.clientY };
        }}
        onMouseLeave={() => (hover.value = null)}
        onClick={(event) => activate(boxUnder(event))}
      >
        <div class="content" style={{ height: `${layout.value.rows * ROW_HEIGHT}px` }}>
          <canvas
            ref={canvas} aria-hidden="true" class={hover.value === null ? "" : "pointing"}
            style={{ width: `${size.value.width}px`, height: `${size.value.height}px` }}
          />
        </div>
      </div>
      {empty && <NothingSelected store={store} />}
      {layout.value.cut && <p class="note" role="note">The deepest rows are left out: zoom in to see them.</p>}
      <p id="frame-spoken" class="spoken" aria-live="polite">
        {hasFocus.value && focus.value >= 0 ? spokenFrame(store, layout.value.node[focus.value]) : ""}
      </p>
      {tip !== null && tip.box < layout.value.node.length && (
        <FrameTip store={store} node={layout.value.node[tip.box]} rest={layout.value.rest[tip.box] === 1}
          layout={layout.value} box={tip.box} x={tip.x} y={tip.y} />
      )}
    </div>
  );
}
