// Light or dark: what the system says until the reader chooses, and then what the reader chose last time.

import { computed, signal } from "@preact/signals";
import { palettes, type ThemeName } from "../draw/palette";

const KEY = "pymemtrace-theme";

function stored(): ThemeName | null {
  // Storage may be switched off for files.
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : null;
  } catch {
    return null;
  }
}

const dark = typeof matchMedia === "function" ? matchMedia("(prefers-color-scheme: dark)") : null;
const system = signal<ThemeName>(dark?.matches === true ? "dark" : "light");
const chosen = signal<ThemeName | null>(typeof localStorage === "undefined" ? null : stored());

dark?.addEventListener("change", (event) => {
  system.value = event.matches ? "dark" : "light";
});

export const theme = computed<ThemeName>(() => chosen.value ?? system.value);
export const palette = computed(() => palettes[theme.value]);

export function toggleTheme(): void {
  chosen.value = theme.value === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(KEY, chosen.value);
  } catch {
    // The choice then lasts as long as the page.
  }
}
