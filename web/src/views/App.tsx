import { useEffect, useRef } from "preact/hooks";
import type { Store } from "../state/store";
import { Crumbs } from "./Crumbs";
import { NothingRecorded } from "./Empty";
import { FlameView } from "./FlameView";
import { Header } from "./Header";
import { Help } from "./Help";
import { Legend } from "./Legend";
import { SiteTable } from "./SiteTable";
import { TimelineView } from "./TimelineView";
import { Toolbar } from "./Toolbar";

/** Keys that work wherever the focus is, except in fields that take text. */
function useGlobalKeys(store: Store): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const target = event.target as HTMLElement;
      if (target.closest("input, select, textarea, dialog") !== null) return;
      if (event.key === "/") document.getElementById("search")?.focus();
      else if (event.key === "i") store.setInverted(!store.inverted.value);
      else if (event.key === "r") store.resetZoom();
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [store]);
}

export function App({ store }: { store: Store }) {
  const help = useRef<HTMLDialogElement>(null);
  useGlobalKeys(store);
  const { report } = store;
  const nothing = report.values.node.length === 0 && report.lives.node.length === 0;
  const hasChart = report.timeline.t.length > 0 || report.lives.node.length > 0;
  return (
    <>
      <Header store={store} openHelp={() => help.current?.showModal()} />
      {hasChart && <TimelineView store={store} />}
      {nothing ? (
        <NothingRecorded />
      ) : (
        <main>
          <Toolbar store={store} />
          <div class={store.tableShown.value ? "split" : "split alone"}>
            <section class="graph" aria-label="Flame graph">
              <Crumbs store={store} />
              <FlameView store={store} />
              <Legend store={store} />
            </section>
            {store.tableShown.value && <SiteTable store={store} />}
          </div>
        </main>
      )}
      <Help dialog={help} />
    </>
  );
}
