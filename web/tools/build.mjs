import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { buildTemplate, TEMPLATE } from "./template.mjs";

const { html, scriptBytes } = await buildTemplate();
mkdirSync(dirname(TEMPLATE), { recursive: true });
writeFileSync(TEMPLATE, html);
console.log(`${TEMPLATE}: ${html.length} characters, script ${scriptBytes} bytes compressed`);
