import type { RefObject } from "preact";
import { RUN_WORDS, WINDOW_WORDS } from "../state/words";

const KEYS: [string, string][] = [
  ["/", "search"],
  ["← ↑ → ↓", "move between frames, when the graph has the focus"],
  ["Enter", "zoom into the frame"],
  ["Escape, Backspace", "zoom out by one frame"],
  ["r, Home", "back to the whole graph"],
  ["i", "invert: callers below callees"],
];

export function Help({ dialog }: { dialog: RefObject<HTMLDialogElement | null> }) {
  return (
    <dialog ref={dialog} aria-labelledby="help-title">
      <form method="dialog">
        <h2 id="help-title">How to read this report</h2>
        <p>
          Each box is a function at a line. Its width is the memory allocated by it and everything it called; boxes below it
          are what it called. Frames too narrow to draw are shown together as one low grey box: zoom in to see them.
        </p>
        <h3>Views</h3>
        <dl>
          {Object.values(RUN_WORDS).map((w) => <><dt>{w.label}</dt><dd>{w.title}.</dd></>)}
        </dl>
        <h3>With a time window</h3>
        <p>Drag across the chart to select a window; drag its edges or its middle to change it; click beside it to clear it.</p>
        <dl>
          {Object.values(WINDOW_WORDS).map((w) => <><dt>{w.label}</dt><dd>{w.title}.</dd></>)}
        </dl>
        <h3>Frames</h3>
        <p>
          Hidden import and interpreter frames are taken out of the stacks; what they allocated counts to the frame that
          called them. No memory is left out.
        </p>
        <h3>Keys</h3>
        <dl class="keys">
          {KEYS.map(([key, what]) => <><dt><kbd>{key}</kbd></dt><dd>{what}</dd></>)}
        </dl>
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}
