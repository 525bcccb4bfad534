// What views are called and what they mean, in one place: buttons, tooltips, headings and screen readers agree.

import type { RunView, WindowView } from "../format/schema";

export interface ViewWords {
  label: string;
  title: string;
  /** Completes "No memory …". */
  nothing: string;
}

export const RUN_WORDS: Record<RunView, ViewWords> = {
  peak: {
    label: "Peak",
    title: "What was alive at the moment when the heap was largest",
    nothing: "was alive at the peak",
  },
  leaks: {
    label: "Alive at the end",
    title: "What was still alive when the program ended. That alone does not make it a leak",
    nothing: "was alive at the end",
  },
  total: {
    label: "Allocated",
    title: "Everything allocated in the whole run, whether released or not",
    nothing: "was allocated",
  },
  temporary: {
    label: "Temporary",
    title: "What was released again at once: memory that was churned, not held",
    nothing: "was allocated and released at once",
  },
};

/** Of a page that was written for a part of the run. */
export const STRETCH_WORDS: Record<RunView, ViewWords> = {
  peak: {
    label: "Peak",
    title: "What was alive when the heap was largest in this part of the run",
    nothing: "was alive at the peak of this part of the run",
  },
  leaks: {
    label: "Allocated and kept",
    title: "Allocated in this part of the run and alive at its end",
    nothing: "was allocated in this part of the run and alive at its end",
  },
  total: {
    label: "Allocated",
    title: "Everything allocated in this part of the run, whether released or not",
    nothing: "was allocated in this part of the run",
  },
  temporary: {
    label: "Temporary",
    title: "Allocated in this part of the run and released again at once",
    nothing: "was allocated and released at once in this part of the run",
  },
};

export const WINDOW_WORDS: Record<WindowView, ViewWords> = {
  kept: {
    label: "Allocated and kept",
    title: "Allocated in the window and alive at its end",
    nothing: "was allocated in this window and alive at its end",
  },
  allocated: {
    label: "Allocated in the window",
    title: "Everything allocated in the window, whether released or not",
    nothing: "was allocated in this window",
  },
  alive: {
    label: "Alive at the window's end",
    title: "Everything alive at the window's end, whenever it was allocated",
    nothing: "was alive at the end of this window",
  },
};
