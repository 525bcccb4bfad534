// What was run, how it ended, and what a reader must know before trusting the numbers.

import { visible } from "../format/strings";
import type { CaptureInfo } from "../format/schema";
import { duration, grouped, humanBytes } from "../model/units";
import type { Store } from "../state/store";
import { theme, toggleTheme } from "../state/theme";

const ENDED: Record<string, string> = { normal: "ended normally", killed: "was killed", running: "was still running" };

function outcome(capture: CaptureInfo): string {
  if (capture.ended === "normal" && capture.endedBy === "exception") return "ended by an exception";
  if (capture.ended === "normal" && capture.exitStatus > 0) return `ended with status ${capture.exitStatus}`;
  return ENDED[capture.ended] ?? visible(capture.ended);
}

function warnings(capture: CaptureInfo, several: boolean): string[] {
  const result: string[] = [];
  if (capture.ended === "killed") {
    result.push("The program was killed: “the end” is the last flush before that.");
  } else if (capture.ended === "running") {
    result.push(
      `The program was still running: “the end” is the last flush, ${duration(capture.ageS)} before this report was written.`,
    );
  }
  for (const [reason, count] of capture.dropped) {
    result.push(`${grouped(count)} records were dropped (${visible(reason)}): figures are too low by them.`);
  }
  if (capture.folded > 0) {
    result.push(
      `${grouped(capture.folded)} stacks were folded into [folded] at the memory limit: totals are right, detail is missing.`,
    );
  }
  if (capture.mode === "sampled") result.push(sampling(capture));
  return several ? result.map((text) => `Process ${capture.pid ?? "?"}: ${text}`) : result;
}

function sampling(capture: CaptureInfo): string {
  const { sampleBytes, sampleBytesNow } = capture;
  if (sampleBytes === 0) return "Sampled recording: all figures are estimates.";
  const grown = sampleBytesNow > sampleBytes ? ` at the start, per ${humanBytes(sampleBytesNow)} at the end` : "";
  return `Sampled: one sample per ${humanBytes(sampleBytes)} allocated on average${grown}; figures are estimates with 95 % intervals.`;
}

function started(iso: string): string {
  const date = new Date(iso);
  return Number.isNaN(date.getTime())
    ? visible(iso)
    : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

// One process: what it was. Several: how many, from the first start to the last end.
function Facts({ captures }: { captures: CaptureInfo[] }) {
  const [capture] = captures;
  if (captures.length > 1) {
    const starts = captures.map((c) => Date.parse(c.started));
    const ends = captures.map((c, i) => starts[i] + c.durationS * 1000);
    const first = starts.indexOf(Math.min(...starts));
    return (
      <dl class="facts">
        <div><dt>Processes</dt><dd>{grouped(captures.length)}</dd></div>
        <div><dt>Python</dt><dd>{visible([...new Set(captures.map((c) => c.python))].join(", "))}</dd></div>
        {first >= 0 && <div><dt>Started</dt><dd><time dateTime={visible(captures[first].started)}>{started(captures[first].started)}</time></dd></div>}
        {first >= 0 && <div><dt>Duration</dt><dd>{duration((Math.max(...ends) - starts[first]) / 1000)}</dd></div>}
      </dl>
    );
  }
  return (
    <dl class="facts">
      <div class="command">
        <dt>Command</dt>
        <dd><code title={visible(capture.command.join(" "))}>{visible(capture.command.join(" "))}</code></dd>
      </div>
      <div><dt>Python</dt><dd>{visible(capture.python)}</dd></div>
      <div><dt>Started</dt><dd><time dateTime={visible(capture.started)}>{started(capture.started)}</time></dd></div>
      <div><dt>Duration</dt><dd>{duration(capture.durationS)}</dd></div>
      <div><dt>Outcome</dt><dd>{outcome(capture)}</dd></div>
      {capture.pid !== null && <div><dt>Process</dt><dd>{capture.pid}</dd></div>}
    </dl>
  );
}

export function Header({ store, openHelp }: { store: Store; openHelp: () => void }) {
  const { header } = store.report;
  const dark = theme.value === "dark";
  return (
    <header>
      <div class="headline">
        <h1 title={visible(header.title)}>{visible(header.title)}</h1>
        {header.captures.length > 0 && <Facts captures={header.captures} />}
        <div class="actions">
          <button type="button" onClick={openHelp} title="What the colours, views and keys mean">Help</button>
          <button type="button" onClick={toggleTheme} aria-label={dark ? "Switch to light colours" : "Switch to dark colours"}>
            {dark ? "Light" : "Dark"}
          </button>
        </div>
      </div>
      {header.captures.flatMap((capture) => warnings(capture, header.captures.length > 1)).map((text) => <p class="warning" role="note" key={text}>{text}</p>)}
      {header.notes.map((note) => <p class="note" role="note" key={note}>{visible(note)}</p>)}
    </header>
  );
}
