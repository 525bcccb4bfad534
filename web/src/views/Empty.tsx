// What the page says when there is nothing to draw.

import { visible } from "../format/strings";
import type { Store } from "../state/store";
import { WINDOW_WORDS } from "../state/words";

export function Template() {
  return (
    <div class="message" role="status">
      <h1>An empty template</h1>
      <p>This file has no data in it. <code>pymemtrace flamegraph</code> writes reports from it.</p>
    </div>
  );
}

export function Damaged({ why }: { why: string }) {
  return (
    <div class="message" role="alert">
      <h1>This report cannot be shown</h1>
      <p>{why.endsWith(".") ? why : `${why}.`}</p>
      <p>Write the report again from its capture with <code>pymemtrace flamegraph</code>.</p>
    </div>
  );
}

export function NothingRecorded() {
  return (
    <div class="message" role="status">
      <h1>Nothing was recorded</h1>
      <p>The capture holds no allocations: the program ended before it made any, or the filters left none over.</p>
    </div>
  );
}

/** The graph has no width: say which choice emptied it, and offer the way back. */
export function NothingSelected({ store }: { store: Store }) {
  const inWindow = store.window.value !== null;
  const words = inWindow ? WINDOW_WORDS[store.windowView.value] : store.runWords[store.view.value];
  const thread = store.report.header.threads.find((t) => t.id === store.thread.value);
  return (
    <div class="message inside" role="status">
      <p>
        {thread === undefined ? "No memory " : `In the thread ${visible(thread.name)}, no memory `}
        {words.nothing}.
      </p>
      {(inWindow || thread !== undefined) && (
        <button type="button" onClick={() => store.showAll()}>Show the whole run and all threads</button>
      )}
    </div>
  );
}
