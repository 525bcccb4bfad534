import { describe, expect, it } from "vitest";
import { palettes, shareStep } from "../src/draw/palette";
import { fit } from "../src/draw/flame";

type Rgb = [number, number, number];
const parse = (hex: string): Rgb => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255) as Rgb;
const linear = (c: number): number => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const luminance = (hex: string): number => {
  const [r, g, b] = parse(hex).map(linear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a: string, b: string): number => {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
};

// Viénot, Brettel, Mollon 1999: dichromats' view of linear RGB.
const SEEN: Record<string, number[][]> = {
  normal: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protanopia: [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
  deuteranopia: [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
};

function lab(hex: string, matrix: number[][]): Rgb {
  const rgb = parse(hex).map(linear);
  const [r, g, b] = matrix.map((row) => Math.max(0, row[0] * rgb[0] + row[1] * rgb[1] + row[2] * rgb[2]));
  const f = (t: number): number => (t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116);
  const x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505);
  const y = f(0.2126 * r + 0.7152 * g + 0.0722 * b);
  const z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089);
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}
const distance = (a: Rgb, b: Rgb): number => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);

describe.each(["light", "dark"] as const)("%s palette", (name) => {
  const p = palettes[name];
  it("keeps every label legible", () => {
    for (const fill of [...p.modules, ...p.shares, p.other, p.synthetic, p.root]) {
      expect(contrast(p.text, fill), `text on ${fill}`).toBeGreaterThanOrEqual(4.5);
      expect(contrast(p.textSoft, fill), `place on ${fill}`).toBeGreaterThanOrEqual(4.5);
    }
    expect(contrast(p.matchText, p.match)).toBeGreaterThanOrEqual(4.5);
    expect(contrast(p.fadedText, p.faded)).toBeGreaterThanOrEqual(4.5);
    expect(contrast(p.axisText, p.background)).toBeGreaterThanOrEqual(4.5);
  });

  it.each(Object.keys(SEEN))("keeps modules apart for %s", (vision) => {
    const fills = [...p.modules, p.other];
    const seen = fills.map((hex) => lab(hex, SEEN[vision]));
    let closest = Infinity;
    let pair = "";
    seen.forEach((a, i) => seen.slice(0, i).forEach((b, k) => {
      if (distance(a, b) < closest) [closest, pair] = [distance(a, b), `${fills[i]} ${fills[k]}`];
    }));
    // About 2.3 is just noticeable side by side; 12 is told apart across a drawing.
    expect(closest, pair).toBeGreaterThanOrEqual(12);
  });
});

describe("steps and labels", () => {
  it("maps shares to steps", () => {
    expect([0, 0.02, 0.3, 1].map((share) => shareStep(share, 6))).toEqual([0, 0, 3, 5]);
  });
  it("cuts labels with an ellipsis or leaves them out", () => {
    expect([fit("parse", 5), fit("parse", 4), fit("parse", 2)]).toEqual(["parse", "par…", ""]);
  });
});
