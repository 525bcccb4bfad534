// What frames are called: function, place, and the module that gives the colour.

import { FLAG_SYNTHETIC, type Report } from "./report";
import type { Granularity } from "./structure";

/** The last component of a path, with its folder where every package has such a file; `<…>` stays whole. */
export function baseName(file: string): string {
  if (file.startsWith("<")) return file;
  const parts = file.split(/[\\/]/);
  return parts.slice(/^__(init|main)__\.py$/.test(parts[parts.length - 1]) ? -2 : -1).join("/");
}

/**
 * The module that a file counts to: an installed package as a whole, a module of the standard library, or one file
 * of the program.
 */
export function moduleOf(file: string): string {
  if (file === "") return "";
  const frozen = /^<frozen ([^>.]+)/.exec(file);
  if (frozen !== null) return frozen[1];
  const parts = file.split(/[\\/]/);
  const packages = Math.max(parts.lastIndexOf("site-packages"), parts.lastIndexOf("dist-packages"));
  const library = parts.findIndex((part) => /^python\d+(\.\d+)?t?$/.test(part));
  const root = packages >= 0 ? packages : library;
  const name = root >= 0 && root + 1 < parts.length ? parts[root + 1] : parts[parts.length - 1];
  return name.replace(/\.(pyc?|pyx|so)$/, "");
}

export class Names {
  private readonly modules = new Map<number, string>(); // by file string

  constructor(
    private readonly report: Report,
    readonly granularity: Granularity,
  ) {}

  func(frame: number): string {
    return this.report.strings.get(this.report.frames.func[frame]);
  }
  file(frame: number): string {
    return this.report.strings.get(this.report.frames.file[frame]);
  }
  /** The name of a native frame's library; empty of others, and where it is the frame's file. */
  library(frame: number): string {
    const { object, file } = this.report.frames;
    if (object.length === 0 || object[frame] === file[frame]) return "";
    return baseName(this.report.strings.get(object[frame]));
  }
  synthetic(frame: number): boolean {
    return (this.report.frames.flags[frame] & FLAG_SYNTHETIC) !== 0;
  }

  private at(file: string, frame: number): string {
    const line = this.report.frames.line[frame];
    // When the lines of a function are merged, the frame's own line says nothing about the rest.
    return file === "" || line === 0 || this.granularity === "function" ? file : `${file}:${line}`;
  }
  /** "/abs/path/etl.py:42" */
  place(frame: number): string {
    return this.at(this.file(frame), frame);
  }
  /** "etl.py:42" */
  shortPlace(frame: number): string {
    return this.at(baseName(this.file(frame)), frame);
  }
  /** What a search looks at. */
  full(frame: number): string {
    return `${this.func(frame)} ${this.place(frame)} ${this.library(frame)}`.trimEnd();
  }
  module(frame: number): string {
    const id = this.report.frames.file[frame];
    let module = this.modules.get(id);
    if (module === undefined) {
      module = moduleOf(this.report.strings.get(id));
      this.modules.set(id, module);
    }
    return module;
  }
}
