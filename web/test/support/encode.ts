// The writing side of the container, for tests: written from docs/flame-data.md, not from the reader.

import { gzipSync } from "node:zlib";

export type AnyArray = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array;

const TYPES: [new (n: number) => AnyArray, string][] = [
  [Uint8Array, "u8"], [Uint16Array, "u16"], [Uint32Array, "u32"], [Int32Array, "i32"], [Float64Array, "f64"],
];

export interface Parts {
  header: Record<string, unknown>;
  arrays: Record<string, AnyArray>;
}

const align = (n: number): number => Math.ceil(n / 8) * 8;

export function encodeContainer({ header, arrays }: Parts): Uint8Array<ArrayBuffer> {
  const specs: Record<string, { type: string; offset: number; count: number }> = {};
  let size = 0;
  for (const [name, array] of Object.entries(arrays)) {
    const type = TYPES.find(([constructor]) => array instanceof constructor)?.[1] ?? "?";
    specs[name] = { type, offset: size, count: array.length };
    size = align(size + array.byteLength);
  }
  const json = new TextEncoder().encode(JSON.stringify({ ...header, arrays: specs }));
  const area = align(12 + json.length);
  const bytes = new Uint8Array(area + size);
  bytes.set(new TextEncoder().encode("PMTF"), 0);
  const view = new DataView(bytes.buffer);
  view.setUint32(4, 1, true);
  view.setUint32(8, json.length, true);
  bytes.set(json, 12);
  for (const [name, array] of Object.entries(arrays)) {
    bytes.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), area + specs[name].offset);
  }
  return bytes;
}

/** The template with data in it, as the Python side writes it. */
export function fillTemplate(template: string, container: Uint8Array, title: string): string {
  const escaped = title.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
  const data = gzipSync(container, { level: 1 }).toString("base64");
  return template
    .replace("PYMEMTRACE-TITLE", () => escaped)
    .replace(
      "<!--PYMEMTRACE-DATA-->",
      () => `<script type="application/octet-stream;base64" id="pymemtrace-data">${data}</script>`,
    );
}
