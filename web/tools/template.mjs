// Builds the template in memory: bundle, then pin script and style by hash in the Content Security Policy.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";

export const WEB = resolve(dirname(fileURLToPath(import.meta.url)), "..");
export const TEMPLATE = resolve(WEB, "../pymemtrace/web/flamegraph.html");
export const BUDGET_BYTES = 120 * 1024;

const hash = (text) => `'sha256-${createHash("sha256").update(text, "utf8").digest("base64")}'`;

function contents(html, tag) {
  return [...html.matchAll(new RegExp(`<${tag}\\b[^>]*>([\\s\\S]*?)</${tag}>`, "g"))].map((match) => match[1]);
}

function count(html, text) {
  return html.split(text).length - 1;
}

/** The licences of what is bundled: they ask to travel with every copy. */
function licences() {
  const texts = new Map(); // text -> packages under it
  for (const name of ["preact", "@preact/signals", "@preact/signals-core"]) {
    const text = readFileSync(resolve(WEB, "node_modules", name, "LICENSE"), "utf8").trim();
    texts.set(text, [...(texts.get(text) ?? []), name]);
  }
  const parts = [...texts].map(([text, names]) => `This page contains ${names.join(", ")}:\n\n${text}`);
  const comment = ["PyMemTrace flame graph report. Apache-2.0.", ...parts].join("\n\n");
  if (comment.includes("--")) throw new Error("a licence text would end its comment");
  return `<!--\n${comment}\n-->`;
}

/** What must hold for every template, or an error that says what does not. */
function inspect(html, scripts) {
  for (const placeholder of ["PYMEMTRACE-TITLE", "<!--PYMEMTRACE-DATA-->"]) {
    if (count(html, placeholder) !== 1) {
      throw new Error(`${placeholder} occurs ${count(html, placeholder)} times in the template, expected once`);
    }
  }
  if (scripts.length !== 1) throw new Error(`the template has ${scripts.length} scripts, expected one`);
  const reference = /(?:src|href)="(?!data:)[^"]*"|url\((?!["']?data:)[^)]*\)|@import/.exec(html);
  if (reference !== null) throw new Error(`the template refers to another file: ${reference[0]}`);
  const size = gzipSync(scripts[0], { level: 9 }).length;
  if (size > BUDGET_BYTES) throw new Error(`the script has ${size} bytes compressed; the budget is ${BUDGET_BYTES}`);
  return size;
}

/** -> { html, scriptBytes: size of the compressed script } */
export async function buildTemplate() {
  const result = await build({ root: WEB, logLevel: "warn", build: { write: false } });
  const page = result.output.find((file) => file.fileName === "index.html");
  if (page === undefined) throw new Error("the build produced no page");
  let html = String(page.source);
  const scripts = contents(html, "script");
  const policy = [
    "default-src 'none'",
    `script-src ${scripts.map(hash).join(" ")}`,
    `style-src ${contents(html, "style").map(hash).join(" ")}`,
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ");
  html = html.replace("PYMEMTRACE-CSP", () => policy);
  html = html.replace(/<html[^>]*>/, (tag) => `${tag}\n  ${licences()}`);
  if (!html.endsWith("\n")) html += "\n";
  return { html, scriptBytes: inspect(html, scripts) };
}
