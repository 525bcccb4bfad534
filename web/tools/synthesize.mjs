// Writes a report with made-up data: npm run synthesize -- OUT.html [STACKS]

import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "vite";
import { TEMPLATE, WEB } from "./template.mjs";

const [out, stacks = "100000"] = process.argv.slice(2);
if (out === undefined || !/^\d+$/.test(stacks)) {
  console.error("usage: npm run synthesize -- OUT.html [STACKS]");
  process.exit(2);
}
const server = await createServer({
  root: WEB,
  logLevel: "warn",
  server: { middlewareMode: true, hmr: false, ws: false },
  optimizeDeps: { noDiscovery: true, include: [] }, // no browser will ask for anything
});
try {
  const { synthetic } = await server.ssrLoadModule("/test/support/synthetic.ts");
  const { fillTemplate } = await server.ssrLoadModule("/test/support/encode.ts");
  const page = fillTemplate(readFileSync(TEMPLATE, "utf8"), synthetic(Number(stacks)).container(), "etl.py");
  writeFileSync(out, page);
  console.log(`${out}: ${page.length} bytes, ${stacks} distinct stacks`);
} finally {
  await server.close();
}
