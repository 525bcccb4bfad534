// Colours of both themes.
//
// Modules: eight colours, found by a search that kept the closest two as far apart as it could for normal vision,
// protanopia and deuteranopia at once; light enough for dark text in the light theme and dark enough for light text in
// the dark theme: a label has a contrast of at least 4.5 to 1 on each. test/palette.test.ts checks both.
// Share: one hue from pale to strong, so that it reads without telling hues apart.

export type ThemeName = "light" | "dark";

export interface Palette {
  modules: string[];
  other: string;
  synthetic: string;
  rest: string;
  root: string;
  shares: string[];
  match: string;
  matchText: string;
  faded: string;
  fadedText: string;
  text: string;
  textSoft: string;
  background: string;
  focus: string;
  grid: string;
  axisText: string;
  rss: string;
  heap: string;
  heapFill: string;
  gc: string;
  mark: string;
  peak: string;
  windowFill: string;
  windowEdge: string;
}

const LIGHT: Palette = {
  modules: ["#87ade8", "#f8bba2", "#acaf70", "#f9c7ff", "#57b9cd", "#fee3a4", "#e894a3", "#acf5ca"],
  other: "#e3e6eb",
  synthetic: "#e6e2d8",
  rest: "#c3c8d0",
  root: "#e7eaf0",
  shares: ["#f7f1e8", "#f8e0c1", "#f6cc97", "#f2b66b", "#ea9d43", "#e48e30"],
  match: "#c026a8",
  matchText: "#ffffff",
  faded: "#e9ebef",
  fadedText: "#5d6673",
  text: "#141a22",
  textSoft: "#2b333e",
  background: "#ffffff",
  focus: "#0b57d0",
  grid: "#e4e8ee",
  axisText: "#566070",
  rss: "#8a5a00",
  heap: "#0b6bcb",
  heapFill: "rgba(11,107,203,0.16)",
  gc: "#9a4f8f",
  mark: "#5d6673",
  peak: "#b3261e",
  windowFill: "rgba(11,87,208,0.13)",
  windowEdge: "#0b57d0",
};

const DARK: Palette = {
  modules: ["#316f81", "#a05765", "#6b7139", "#61699f", "#066147", "#69322a", "#00456f", "#51400d"],
  other: "#3a414b",
  synthetic: "#4d4a42",
  rest: "#333a44",
  root: "#39424e",
  shares: ["#2b2926", "#3d3125", "#543c22", "#6d471d", "#844f18", "#9a5712"],
  match: "#f08bdc",
  matchText: "#1b0517",
  faded: "#242a33",
  fadedText: "#9aa5b3",
  text: "#f2f5f9",
  textSoft: "#ecf0f5",
  background: "#14181f",
  focus: "#8ab4f8",
  grid: "#2a313b",
  axisText: "#9fabba",
  rss: "#e0a94a",
  heap: "#6db3f8",
  heapFill: "rgba(109,179,248,0.18)",
  gc: "#d19ac8",
  mark: "#9aa5b3",
  peak: "#ff8a80",
  windowFill: "rgba(138,180,248,0.17)",
  windowEdge: "#8ab4f8",
};

export const palettes: Record<ThemeName, Palette> = { light: LIGHT, dark: DARK };

/** Self share of a frame's own width -> a step of `shares`. */
export function shareStep(share: number, steps: number): number {
  return Math.min(steps - 1, Math.floor(Math.sqrt(Math.max(0, share)) * steps));
}
