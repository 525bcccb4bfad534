// Fails when the committed template is not what the sources build.

import { existsSync, readFileSync } from "node:fs";
import { buildTemplate, TEMPLATE } from "./template.mjs";

const { html, scriptBytes } = await buildTemplate();
if (!existsSync(TEMPLATE)) {
  console.error("pymemtrace/web/flamegraph.html is missing: run `npm run build` in web/ and commit it");
  process.exit(1);
}
if (readFileSync(TEMPLATE, "utf8") !== html) {
  console.error("pymemtrace/web/flamegraph.html does not match web/src: run `npm run build` in web/ and commit it");
  process.exit(1);
}
console.log(`the template matches its sources; its script has ${scriptBytes} bytes compressed`);
