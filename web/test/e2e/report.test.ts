// The committed template in Chromium, opened as a file, with 100,000 distinct stacks and with none.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Builder } from "../support/builder";
import { encodeContainer, fillTemplate } from "../support/encode";
import { synthetic } from "../support/synthetic";
import { launch } from "./browser";

const OUT = resolve(import.meta.dirname, "../../test-output");
const TEMPLATE = readFileSync(resolve(import.meta.dirname, "../../../pymemtrace/web/flamegraph.html"), "utf8");

let browser: Browser;
let page: Page;
const problems: string[] = [];

beforeAll(async () => {
  mkdirSync(OUT, { recursive: true });
  browser = await launch();
});
afterAll(() => browser.close());
afterEach(async () => {
  await page.close();
  // Nothing may go wrong, be blocked or be asked of the network in any of the tests.
  expect(problems.splice(0)).toEqual([]);
});

async function open(name: string, html: string, scheme: "light" | "dark" = "light"): Promise<void> {
  const file = resolve(OUT, name);
  writeFileSync(file, html);
  page = await browser.newPage({ viewport: { width: 1440, height: 900 }, colorScheme: scheme });
  page.on("pageerror", (error) => problems.push(`exception: ${error.message}`));
  page.on("console", (message) => {
    // The one warning that the tests cause themselves, by reading pixels back.
    if (message.text().includes("getImageData")) return;
    if (message.type() === "error" || message.type() === "warning") problems.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!/^(file|data|blob):/.test(request.url())) problems.push(`network: ${request.url()}`);
  });
  await page.goto(pathToFileURL(file).href);
  await page.waitForFunction(() => performance.getEntriesByName("pymemtrace-open").length > 0);
}

const report = (b: Builder, title = "test"): string => fillTemplate(TEMPLATE, b.container(), title);
const text = (selector: string): Promise<string> => page.locator(selector).innerText();
const shot = (name: string): Promise<unknown> => page.screenshot({ path: resolve(OUT, name) });
const GRAPH = '[role="application"]';

/** The colours in one row of the graph: what is drawn, not what was meant to be. */
async function colours(row: number): Promise<number> {
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  return page.evaluate((y) => {
    const canvas = document.querySelector<HTMLCanvasElement>(".scroller canvas");
    const context = canvas?.getContext("2d");
    if (canvas === null || context === null || context === undefined) return -1;
    const { data } = context.getImageData(0, y, canvas.width, 1);
    const seen = new Set<number>();
    for (let i = 0; i < data.length; i += 4) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    return seen.size;
  }, row * 20 + 2);
}

function small(): Builder {
  const b = new Builder();
  const line = (func: string, n: number) => b.frame({ func, file: "/app/etl.py", line: n });
  b.value(b.stack(line("main", 5), line("read_rows", 12), line("parse", 30)), { peak: [6 * 2 ** 20, 600], leak: [2 ** 20, 9] });
  b.value(b.stack(line("main", 5), line("write_rows", 50)), { peak: [4 * 2 ** 20, 40], total: [2 ** 25, 400] }, 1);
  b.life(b.stack(line("main", 5), line("write_rows", 50)), 2, 4, 5000, 5, 1);
  b.timeline = Array.from({ length: 11 }, (_, t) => ({ t, rss: 3e7 + t * 1e6, heap: 1e7 + t * 1e6, gc: t % 2 }));
  return b;
}

describe("100,000 distinct stacks", () => {
  it("opens, searches, zooms, inverts, filters by time and changes theme", async () => {
    const html = report(synthetic(100_000), "etl.py");
    const before = performance.now();
    await open("big.html", html);
    const whole = performance.now() - before;
    const own = await page.evaluate(() => performance.getEntriesByName("pymemtrace-open")[0].duration);
    console.log(`open: ${Math.round(whole)} ms with the browser's share, ${Math.round(own)} ms in the page`);
    expect(await page.title()).toBe("etl.py · PyMemTrace");
    expect(await text("header")).toContain("python -m jobs.etl --input orders-2026.csv.gz");
    expect(await colours(4)).toBeGreaterThan(5);
    await shot("01-open.png");

    // Search: share and highlight.
    const plain = await colours(4);
    await page.keyboard.press("/");
    await page.keyboard.type("loading.py");
    await page.waitForFunction(() => /sites: .* %/.test(document.querySelector(".search output")?.textContent ?? ""));
    expect(await colours(4)).not.toBe(plain);
    await shot("02-search.png");
    await page.locator(".regex").click();
    await page.fill("#search", "^Reader\\.(join|merge)_");
    expect(await text(".search output")).toMatch(/^[\d,]+ sites: .* %$/);
    await page.fill("#search", "([");
    expect(await text(".search output")).toContain("not a valid regular expression");
    await page.fill("#search", "no such function");
    expect(await text(".search output")).toBe("Nothing matches the search.");
    expect(await text(".sites .none")).toBe("Nothing matches the search.");
    await page.fill("#search", "");
    await page.locator(".regex").click();

    // Zoom by click, back by breadcrumb; by keyboard, back by Escape.
    const box = (await page.locator(GRAPH).boundingBox())!;
    await page.mouse.move(box.x + 100, box.y + 4 * 20 + 10);
    expect(await text(".tip")).toMatch(/with callees[\s\S]*MiB/);
    await shot("03-tooltip.png");
    const zoomTime = await page.evaluate(() => performance.now());
    await page.mouse.click(box.x + 100, box.y + 4 * 20 + 10);
    await page.locator(".crumbs .reset").waitFor();
    expect(await page.locator(".crumbs li").count()).toBe(5);
    expect(await text(".crumbs .amount")).toMatch(/% of all/);
    console.log(`zoom: ${Math.round((await page.evaluate(() => performance.now())) - zoomTime)} ms with the test's own share`);
    await shot("04-zoom.png");
    await page.locator(".crumbs li button").first().click();
    expect(await page.locator(".crumbs li").count()).toBe(1);
    await page.locator(GRAPH).focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    expect(await page.locator("#frame-spoken").textContent()).toMatch(/^_run_code, <frozen runpy>:88: .* blocks, .* of all$/);
    await page.keyboard.press("Enter");
    expect(await page.locator(".crumbs li").count()).toBe(3);
    await page.keyboard.press("Escape");
    expect(await page.locator(".crumbs li").count()).toBe(2);
    await page.keyboard.press("Home");
    expect(await page.locator(".crumbs li").count()).toBe(1);

    // Hide, invert.
    await page.getByLabel("Hide interpreter").check();
    await page.locator(GRAPH).focus();
    await page.keyboard.press("ArrowDown");
    expect(await page.locator("#frame-spoken").textContent()).toMatch(/^<module>, etl.py:214/);
    const amount = await text(".crumbs .amount");
    await page.locator(".options").getByLabel("Inverted").check();
    expect(await text(".crumbs .amount")).toBe(amount);
    expect(await colours(1)).toBeGreaterThan(3);
    await page.locator(".options").getByLabel("Colour").selectOption("share");
    await shot("05-inverted-share.png");
    await page.locator(".options").getByLabel("Colour").selectOption("module");
    await page.locator(".options").getByLabel("Inverted").uncheck();

    // Window: drag, three views, keyboard, clear.
    const chart = (await page.locator(".chart canvas").boundingBox())!;
    await page.mouse.move(chart.x + 400, chart.y + 60);
    await page.mouse.down();
    await page.mouse.move(chart.x + 500, chart.y + 60, { steps: 4 });
    await page.mouse.move(chart.x + 700, chart.y + 60, { steps: 8 });
    await page.mouse.up();
    expect(await text(".window-state")).toMatch(/^Window: \d+ s to \d+ s \(\d+\.\d s\)$/);
    expect(await page.locator('.views [role="radio"]').allInnerTexts()).toHaveLength(3);
    expect(await text('.views [aria-checked="true"]')).toContain("Allocated and kept");
    const kept = await text(".crumbs .amount");
    await shot("06-window.png");
    await page.locator('.views [role="radio"]').nth(2).click();
    expect(await text(".crumbs .amount")).not.toBe(kept);
    const state = await text(".window-state");
    await page.getByLabel("End of the time window").focus();
    await page.keyboard.press("ArrowLeft");
    expect(await text(".window-state")).not.toBe(state);
    await page.getByRole("button", { name: "Clear window" }).click();
    expect(await text(".window-state")).toContain("Drag across the chart");
    expect(await page.locator('.views [role="radio"]').allInnerTexts()).toHaveLength(4);

    // Table: only rows in view are in the page; choosing one highlights it.
    expect(await page.locator(".sites .row").count()).toBeLessThan(60);
    await page.locator(".sites .row").first().click();
    expect(await text(".search output")).toMatch(/^Chosen site: .* %$/);
    await page.getByRole("button", { name: "Own" }).click();
    expect(await page.locator('[role="columnheader"]').first().getAttribute("aria-sort")).toBe("ascending");

    await page.getByLabel("Switch to dark colours").click();
    expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe("dark");
    await page.getByRole("button", { name: "Own" }).click();
    await page.locator(".sites .row").first().click(); // chosen again: no highlight
    expect(await text(".search output")).toBe("");
    await shot("07-dark.png");
    await page.reload();
    await page.waitForFunction(() => performance.getEntriesByName("pymemtrace-open").length > 0);
    expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe("dark");
  });
});

describe("small reports", () => {
  it("follows the system's colours and switches views, metric and thread", async () => {
    await open("small.html", report(small()), "dark");
    expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe("dark");
    expect(await text(".crumbs .amount")).toBe("10.0 MiB");
    await page.locator(".options").getByLabel("Width").selectOption("blocks");
    expect(await text(".crumbs .amount")).toBe("640 blocks");
    await page.locator(".options").getByLabel("Thread").selectOption("1");
    expect(await text(".crumbs .amount")).toBe("40 blocks");
    await page.locator('.views [role="radio"]').nth(1).click();
    expect(await text(".message.inside")).toContain("In the thread worker, no memory was alive at the end.");
    await shot("08-nothing-in-view.png");
    await page.getByRole("button", { name: "Show the whole run" }).click();
    expect(await text(".crumbs .amount")).toBe("9 blocks");
    await page.getByRole("button", { name: "Help" }).click();
    expect(await text("dialog")).toContain("That alone does not make it a leak");
    await shot("09-help.png");
    await page.keyboard.press("Escape");
    expect(await page.locator("dialog").isVisible()).toBe(false);
  });

  it("says when nothing is in the window", async () => {
    const b = small();
    b.header.window = { first: 6, last: 7 };
    await open("window.html", report(b));
    expect(await text(".message.inside")).toContain("No memory was allocated in this window and alive at its end.");
  });

  it("says when nothing was recorded, and how a capture ended", async () => {
    const b = new Builder();
    b.header.captures = [{
      path: "x.pmt", pid: 1, command: ["python", "x.py"], python: "3.11.7", mode: "full", started: "2026-03-01T12:00:00+00:00",
      duration_s: 3, ended: "killed", age_s: 0.9, dropped: { "table full": 12 }, folded: 5,
    }];
    b.header.notes = ["Only frames of app/* are shown."];
    await open("empty.html", report(b));
    expect(await text(".message")).toContain("Nothing was recorded");
    const header = await text("header");
    expect(header).toContain("The program was killed: “the end” is the last flush before that.");
    expect(header).toContain("12 records were dropped (table full)");
    expect(header).toContain("5 stacks were folded");
    expect(header).toContain("Only frames of app/* are shown.");
    await shot("10-empty.png");
  });

  it("fits a narrow window", async () => {
    await open("narrow.html", report(synthetic(2000)));
    await page.setViewportSize({ width: 800, height: 900 });
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(800);
    await shot("11-narrow.png");
  });
});

describe("hostile captures", () => {
  const EVIL = `</script><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>`;

  it("shows names as text only", async () => {
    const b = new Builder();
    const frame = b.frame({ func: EVIL, file: `/tmp/${EVIL}\u202e.py`, line: 1 });
    b.value(b.stack(frame), { peak: [100, 1] }).life(b.stack(frame), 1, 2, 100);
    b.marks = [{ t: 1, label: EVIL }];
    b.timeline = [{ t: 0, rss: 1, heap: 1, gc: 0 }];
    b.header.title = EVIL;
    b.header.threads = [{ id: 0, name: EVIL }, { id: 1, name: "<b>" }];
    b.header.notes = [EVIL];
    b.header.captures = [{ command: [EVIL], python: EVIL, started: EVIL, ended: EVIL, mode: EVIL, dropped: { [EVIL]: 1 } }];
    await open("evil.html", report(b, EVIL));
    const area = (await page.locator(GRAPH).boundingBox())!;
    await page.mouse.move(area.x + 50, area.y + 30);
    expect(await text(".tip .func")).toBe(EVIL);
    expect(await text(".tip .place")).toContain("\\u202e");
    await page.mouse.click(area.x + 50, area.y + 30);
    expect(await page.evaluate(() => (window as unknown as { hacked?: number }).hacked)).toBeUndefined();
    expect(await page.locator("img").count()).toBe(0);
  });

  it("says what is wrong with damaged data", async () => {
    const parts = small().parts();
    parts.arrays.node_parent[1] = 77;
    await open("damaged.html", fillTemplate(TEMPLATE, encodeContainer(parts), "x"));
    expect(await text("[role=alert]")).toContain("node_parent[1] is 77, expected less than 1.");
    await shot("12-damaged.png");
  });

  it("says that the bare template is empty", async () => {
    await open("template.html", TEMPLATE);
    expect(await text(".message")).toContain("This file has no data in it.");
  });

  it("does not run scripts that are not its own", async () => {
    // What the policy is for: even markup that got into the page by some mistake stays dead.
    const html = report(small()).replace("<div id=\"app\">", "<script>window.hacked = 1</script><div id=\"app\">");
    await open("injected.html", html);
    expect(await page.evaluate(() => (window as unknown as { hacked?: number }).hacked)).toBeUndefined();
    expect(problems.splice(0).join()).toContain("Content Security Policy");
    expect(await text(".crumbs .amount")).toBe("10.0 MiB");
  });
});
