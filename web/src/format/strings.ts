// The string table: decoded one by one when first shown, because most names never are.

// Characters that would break a line or change the direction of the text around them. A capture may name a
// function anything; a report must not look different from what was recorded.
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** `text` with control and direction-changing characters as visible escapes. */
export function visible(text: string): string {
  return text.replace(UNSAFE, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

export class StringTable {
  private readonly decoder = new TextDecoder();
  private readonly cache: (string | undefined)[] = [];

  constructor(
    private readonly offsets: Uint32Array,
    private readonly bytes: Uint8Array,
  ) {}

  get count(): number {
    return this.offsets.length - 1;
  }

  get(id: number): string {
    let text = this.cache[id];
    if (text === undefined) {
      text = visible(this.decoder.decode(this.bytes.subarray(this.offsets[id], this.offsets[id + 1])));
      this.cache[id] = text;
    }
    return text;
  }
}
