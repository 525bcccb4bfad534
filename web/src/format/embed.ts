// The data element of the page -> container bytes: base64, then gzip.

import { DataError } from "./schema";

const ELEMENT_ID = "pymemtrace-data";
const MAX_BYTES = 2 ** 31;

/** The base64 text that the report was given, or null in the bare template. */
export function embeddedText(document: Document): string | null {
  const element = document.getElementById(ELEMENT_ID);
  return element === null ? null : (element.textContent ?? "");
}

export function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  let binary: string;
  try {
    binary = atob(text);
  } catch {
    throw new DataError("the embedded data is not base64");
  }
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** Decompress, refusing to grow beyond `limit`: a few kilobytes of gzip can ask for gigabytes. */
export async function gunzip(bytes: Uint8Array<ArrayBuffer>, limit = MAX_BYTES): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const reader = stream.getReader();
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      length += value.length;
      if (length > limit) throw new DataError(`the data is larger than ${limit} bytes`);
      chunks.push(value);
    }
  } catch (error) {
    if (error instanceof DataError) {
      await reader.cancel();
      throw error;
    }
    throw new DataError("the embedded data is damaged: it does not decompress");
  }
  const result = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    result.set(chunk, at);
    at += chunk.length;
  }
  return result;
}
