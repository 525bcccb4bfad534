// A folder may use those before it in the data's way, never those after it.

import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, it } from "vitest";

const WAY = ["format", "model", "layout", "draw", "state", "views"];
const SRC = resolve(import.meta.dirname, "../src");

describe.each(WAY)("src/%s", (folder) => {
  const files = readdirSync(resolve(SRC, folder));
  it("has files", () => expect(files.length).toBeGreaterThan(0));

  it.each(files)("%s uses only what comes before it", (file) => {
    const text = readFileSync(resolve(SRC, folder, file), "utf8");
    const used = [...text.matchAll(/from "\.\.\/(\w+)\//g)].map((match) => match[1]);
    for (const other of used) expect(WAY.indexOf(other), other).toBeLessThan(WAY.indexOf(folder));
    for (const other of used) expect(WAY).toContain(other);
  });

  it.each(files)("%s writes no markup from strings", (file) => {
    const text = readFileSync(resolve(SRC, folder, file), "utf8");
    expect(text).not.toMatch(/innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerouslySetInnerHTML|\beval\(/);
  });
});
