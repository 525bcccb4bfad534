// From the page's data element to a store, or to the sentence that says why not.

import { parseContainer } from "../format/container";
import { decodeBase64, embeddedText, gunzip } from "../format/embed";
import { DataError } from "../format/schema";
import { readReport } from "../model/report";
import { createStore, type Store } from "./store";

export type Boot = { kind: "ready"; store: Store } | { kind: "template" } | { kind: "damaged"; why: string };

export async function boot(document: Document): Promise<Boot> {
  try {
    const text = embeddedText(document);
    if (text === null) return { kind: "template" };
    const container = parseContainer(await gunzip(decodeBase64(text)));
    // The text may be as large as the data: let it go.
    document.getElementById("pymemtrace-data")?.remove();
    return { kind: "ready", store: createStore(readReport(container)) };
  } catch (error) {
    if (error instanceof DataError) return { kind: "damaged", why: error.message };
    return { kind: "damaged", why: error instanceof Error ? error.message : String(error) };
  }
}
