// Container bytes -> header and typed arrays. The views share the container's memory: nothing is copied.

import { DataError, parseHeader, type Header } from "./schema";

const VERSION = 1;
const MAGIC = 0x46544d50; // "PMTF" read as a little-endian u32

export interface ArrayTypes {
  u8: Uint8Array;
  u16: Uint16Array;
  u32: Uint32Array;
  i32: Int32Array;
  f64: Float64Array;
}

const CONSTRUCTORS = {
  u8: Uint8Array,
  u16: Uint16Array,
  u32: Uint32Array,
  i32: Int32Array,
  f64: Float64Array,
} as const;

export class Container {
  constructor(
    readonly header: Header,
    private readonly buffer: ArrayBuffer,
    private readonly areaStart: number,
  ) {}

  has(name: string): boolean {
    return this.header.arrays.has(name);
  }

  /** The named array, which must be there. */
  array<T extends keyof ArrayTypes>(name: string, type: T): ArrayTypes[T] {
    const spec = this.header.arrays.get(name);
    if (spec === undefined) throw new DataError(`the array ${name} is missing`);
    if (spec.type !== type) throw new DataError(`the array ${name} has type ${spec.type}, expected ${type}`);
    const constructor = CONSTRUCTORS[type];
    const start = this.areaStart + spec.offset;
    const end = start + spec.count * constructor.BYTES_PER_ELEMENT;
    if (spec.offset % 8 !== 0) throw new DataError(`the array ${name} is not aligned to 8 bytes`);
    if (!(end <= this.buffer.byteLength)) {
      throw new DataError(`the array ${name} ends at byte ${end} of ${this.buffer.byteLength}`);
    }
    return new constructor(this.buffer, start, spec.count) as ArrayTypes[T];
  }

  /** The named array, or an empty one. */
  optional<T extends keyof ArrayTypes>(name: string, type: T): ArrayTypes[T] {
    return this.has(name) ? this.array(name, type) : (new CONSTRUCTORS[type](0) as ArrayTypes[T]);
  }
}

/** `bytes` must start at offset 0 of its buffer, so that arrays keep their alignment. */
export function parseContainer(bytes: Uint8Array<ArrayBuffer>): Container {
  if (bytes.byteOffset !== 0) throw new DataError("the container does not start its buffer");
  if (bytes.length < 12) throw new DataError(`the container has ${bytes.length} bytes, expected at least 12`);
  const view = new DataView(bytes.buffer);
  if (view.getUint32(0, true) !== MAGIC) throw new DataError("the data does not start with PMTF");
  const version = view.getUint32(4, true);
  if (version !== VERSION) {
    throw new DataError(`the data has format version ${version}; this page reads version ${VERSION}`);
  }
  const jsonLength = view.getUint32(8, true);
  if (12 + jsonLength > bytes.length) {
    throw new DataError(`the header claims ${jsonLength} bytes of ${bytes.length - 12}`);
  }
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(bytes.subarray(12, 12 + jsonLength)));
  } catch {
    throw new DataError("the header is not valid JSON");
  }
  const areaStart = Math.ceil((12 + jsonLength) / 8) * 8;
  return new Container(parseHeader(json), bytes.buffer, areaStart);
}
