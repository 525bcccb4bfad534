// The choices: which memory (view, metric, thread), which shape (inverted, hidden frames, lines), which colours.

import type { ComponentChildren } from "preact";
import { WINDOW_VIEWS, VIEWS } from "../format/schema";
import { visible } from "../format/strings";
import { grouped, humanBytes } from "../model/units";
import { bytesByThread, totalsByView } from "../model/weights";
import type { ColourBy, Store } from "../state/store";
import type { Granularity } from "../model/structure";
import { WINDOW_WORDS, type ViewWords } from "../state/words";
import { Search } from "./Search";

interface Choice {
  words: ViewWords;
  amount: string;
  on: boolean;
  choose: () => void;
}

function viewChoices(store: Store): Choice[] {
  const { report } = store;
  const window = store.window.value;
  const totals = totalsByView(report, store.thread.value, window);
  const amount = (name: string): string => {
    const total = totals.get(name) ?? { bytes: 0, blocks: 0 };
    return store.metric.value === "bytes" ? humanBytes(total.bytes) : `${grouped(total.blocks)} blocks`;
  };
  if (window !== null) {
    return WINDOW_VIEWS.map((name) => ({
      words: WINDOW_WORDS[name],
      amount: amount(name),
      on: store.windowView.value === name,
      choose: () => (store.windowView.value = name),
    }));
  }
  return VIEWS.filter((name) => report.values.columns.has(name)).map((name) => ({
    words: store.runWords[name],
    amount: amount(name),
    on: store.view.value === name,
    choose: () => (store.view.value = name),
  }));
}

function Views({ store }: { store: Store }) {
  const choices = viewChoices(store);
  // One tab stop; arrow keys choose, as in every group of radio buttons.
  const onKey = (event: KeyboardEvent): void => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step === 0) return;
    event.preventDefault();
    const at = choices.findIndex((choice) => choice.on);
    const next = (at + step + choices.length) % choices.length;
    choices[next].choose();
    const group = event.currentTarget as HTMLElement;
    (group.children[next] as HTMLElement).focus();
  };
  return (
    <div class="views" role="radiogroup" aria-label="View" onKeyDown={onKey}>
      {choices.map((choice) => (
        <button
          type="button" role="radio" key={choice.words.label} title={choice.words.title}
          aria-checked={choice.on} tabIndex={choice.on ? 0 : -1} onClick={choice.choose}
        >
          <span>{choice.words.label}</span>
          <strong>{choice.amount}</strong>
        </button>
      ))}
    </div>
  );
}

/** The chosen view in a sentence: what the width of a box means now. */
function ViewNote({ store }: { store: Store }) {
  const words = store.window.value === null ? store.runWords[store.view.value] : WINDOW_WORDS[store.windowView.value];
  return <p class="view-note" aria-live="polite">{words.title}.</p>;
}

function Switch(props: { on: boolean; set: (on: boolean) => void; title: string; children: ComponentChildren }) {
  return (
    <label class="switch" title={props.title}>
      <input type="checkbox" checked={props.on} onChange={(event) => props.set(event.currentTarget.checked)} />
      {props.children}
    </label>
  );
}

function Menu<T extends string>(props: { label: string; value: T; set: (value: T) => void; options: [T, string][] }) {
  return (
    <label class="menu">
      {props.label}
      <select value={props.value} onChange={(event) => props.set(event.currentTarget.value as T)}>
        {props.options.map(([value, text]) => <option value={value} key={value}>{text}</option>)}
      </select>
    </label>
  );
}

function threadOptions(store: Store): [string, string][] {
  const bytes = bytesByThread(store.report, store.view.value);
  const inWindow = store.window.value !== null; // the amounts are those of the whole run
  const threads = store.report.header.threads
    .map((thread) => ({ ...thread, bytes: bytes.get(thread.id) ?? 0 }))
    .sort((a, b) => b.bytes - a.bytes || a.id - b.id);
  return [
    ["", `all ${threads.length}`],
    ...threads.map((t): [string, string] => [String(t.id), threadLabel(t.name, t.id, inWindow ? null : t.bytes)]),
  ];
}

function threadLabel(name: string, id: number, bytes: number | null): string {
  const shown = visible(name) || `thread ${id}`;
  return bytes === null ? shown : `${shown} (${humanBytes(bytes)})`;
}

export function Toolbar({ store }: { store: Store }) {
  const { inverted, hideImport, hideInterpreter, hideNative, tableShown } = store;
  return (
    <div class="toolbar">
      <div class="bar">
        <Views store={store} />
        <ViewNote store={store} />
        <Search store={store} />
      </div>
      <div class="bar options" role="group" aria-label="Options">
        <Menu
          label="Width" value={store.metric.value} set={(value) => (store.metric.value = value)}
          options={[["bytes", "bytes"], ["blocks", "blocks"]]}
        />
        {store.report.header.threads.length > 1 && (
          <Menu
            label="Thread" value={store.thread.value === null ? "" : String(store.thread.value)}
            set={(value) => (store.thread.value = value === "" ? null : Number(value))} options={threadOptions(store)}
          />
        )}
        <Menu<Granularity>
          label="Frame" value={store.granularity.value} set={(value) => store.setGranularity(value)}
          options={[["line", "each line"], ["function", "whole function"]]}
        />
        <Menu<ColourBy>
          label="Colour" value={store.colourBy.value} set={(value) => (store.colourBy.value = value)}
          options={[["module", "by module"], ["share", "by own share"]]}
        />
        <Switch on={inverted.value} set={(on) => store.setInverted(on)} title="Allocating functions on top, their callers below">
          Inverted
        </Switch>
        <Switch on={hideImport.value} set={(on) => (hideImport.value = on)} title="Take the import machinery out of the stacks">
          Hide import
        </Switch>
        <Switch
          on={hideInterpreter.value} set={(on) => (hideInterpreter.value = on)}
          title="Take runpy, frozen modules and native functions of the interpreter out of the stacks"
        >
          Hide interpreter
        </Switch>
        {store.report.frames.object.length > 0 && (
          <Switch
            on={hideNative.value} set={(on) => (hideNative.value = on)}
            title="Take functions of C and C++ out: what they allocated counts to the line of Python that called them"
          >
            Hide native
          </Switch>
        )}
        <Switch on={tableShown.value} set={(on) => (tableShown.value = on)} title="Show the table of sites">
          Table
        </Switch>
      </div>
    </div>
  );
}
