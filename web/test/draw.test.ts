import { describe, expect, it } from "vitest";
import { knownPoints } from "../src/draw/timeline";

describe("timeline", () => {
  it("draws a line through all that is known, over what is not", () => {
    // Flushes at whole seconds know the resident memory; the highest points between them do not.
    const t = Float64Array.of(0, 0.5, 1, 1.5, 2);
    expect(knownPoints(t, Float64Array.of(NaN, NaN, 10, NaN, 20))).toEqual([2, 4]);
    expect(knownPoints(t, Float64Array.of(NaN, NaN, NaN, NaN, NaN))).toEqual([]);
  });
});
