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
  modules: ["#8da8ff", "#e69879", "#74b8a8", "#cfe78a", "#e38fd2", "#cba652", "#04dcff", "#85f2b8"],
  other: "#dfe2e7",
  synthetic: "#e6e2d8",
  rest: "#c3c8d0",
  root: "#e7eaf0",
  shares: ["#eef3f8", "#d6e4f1", "#b9d2ea", "#f3d7a6", "#f4bb74", "#ee9850"],
  match: "#c026a8",
  matchText: "#ffffff",
  faded: "#e9ebef",
  fadedText: "#5d6673",
  text: "#141a22",
  textSoft: "#3c4653",
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
  modules: ["#0070ad", "#965488", "#1d7866", "#677028", "#6a2d2d", "#333a78", "#766040", "#623502"],
  other: "#3f4650",
  synthetic: "#4d4a42",
  rest: "#333a44",
  root: "#39424e",
  shares: ["#262d37", "#29394b", "#2c4a67", "#6a4f1f", "#85571b", "#9c5a14"],
  match: "#f08bdc",
  matchText: "#1b0517",
  faded: "#242a33",
  fadedText: "#9aa5b3",
  text: "#f2f5f9",
  textSoft: "#cfd7e1",
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
