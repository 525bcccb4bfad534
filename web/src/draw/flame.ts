// Boxes -> pixels. Only the rows in view are drawn.

import type { Layout } from "../layout/flame";
import type { Names } from "../model/names";
import type { FlameTree } from "../model/tree";
import { CODE_FONT } from "./canvas";
import type { Palette } from "./palette";

export const ROW_HEIGHT = 20;

export interface FlameScene {
  layout: Layout;
  tree: FlameTree;
  names: Names;
  palette: Palette;
  /** Fill of a node. */
  fill: (node: number) => string;
  /** Matching frames, or null when nothing is searched for. */
  matches: Uint8Array | null;
  /** Box that the keyboard is on, or -1. */
  focus: number;
  /** Box under the pointer, or -1. */
  hover: number;
  rootLabel: string;
  scrollTop: number;
  height: number;
}

/** `text` in at most `most` characters, the last one an ellipsis when cut; "" when nothing sensible fits. */
export function fit(text: string, most: number): string {
  if (text.length <= most) return text;
  return most < 3 ? "" : `${text.slice(0, most - 1)}…`;
}

function outline(context: CanvasRenderingContext2D, scene: FlameScene, box: number, row: number, strong: boolean) {
  const { layout, palette } = scene;
  const y = row * ROW_HEIGHT - scene.scrollTop;
  context.strokeStyle = strong ? palette.focus : palette.text;
  context.lineWidth = strong ? 2 : 1;
  const inset = strong ? 1 : 0.5;
  const width = Math.max(2, layout.right[box] - layout.left[box] - 2 * inset);
  context.strokeRect(layout.left[box] + inset, y + inset, width, ROW_HEIGHT - 1 - 2 * inset);
}

export function drawFlame(context: CanvasRenderingContext2D, scene: FlameScene): void {
  const { layout, tree, names, palette, matches } = scene;
  context.fillStyle = palette.background;
  context.fillRect(0, 0, layout.width, scene.height);
  context.font = CODE_FONT;
  context.textBaseline = "middle";
  context.textAlign = "left";
  const charWidth = context.measureText("0123456789").width / 10;

  const firstRow = Math.max(0, Math.floor(scene.scrollTop / ROW_HEIGHT));
  const lastRow = Math.min(layout.rows - 1, Math.floor((scene.scrollTop + scene.height) / ROW_HEIGHT));
  for (let row = firstRow; row <= lastRow; row++) {
    const y = row * ROW_HEIGHT - scene.scrollTop;
    for (let box = layout.rowStart[row]; box < layout.rowStart[row + 1]; box++) {
      const left = layout.left[box];
      const width = layout.right[box] - left;
      const node = layout.node[box];
      if (layout.rest[box] === 1) {
        // Half the height, so that "many narrow frames" never looks like a frame.
        context.fillStyle = matches === null ? palette.rest : palette.faded;
        context.fillRect(left, y, Math.max(0.5, width - 0.5), (ROW_HEIGHT - 1) / 2);
        continue;
      }
      const isRoot = node === 0;
      const hit = matches !== null && !isRoot && matches[tree.frame(node)] === 1;
      const faded = matches !== null && !hit;
      context.fillStyle = hit ? palette.match : faded ? palette.faded : isRoot ? palette.root : scene.fill(node);
      // A gap to the right neighbour, given up where it would eat the box.
      context.fillRect(left, y, width > 3 ? width - 1 : width - 0.3, ROW_HEIGHT - 1);

      const room = Math.floor((width - 7) / charWidth);
      if (room < 2) continue;
      const label = isRoot ? scene.rootLabel : names.func(tree.frame(node));
      const shown = fit(label, room);
      if (shown === "") continue;
      const middle = y + ROW_HEIGHT / 2;
      context.fillStyle = hit ? palette.matchText : faded ? palette.fadedText : palette.text;
      context.fillText(shown, left + 4, middle);
      if (isRoot || shown !== label) continue;
      const place = names.shortPlace(tree.frame(node));
      const placeRoom = room - label.length - 2;
      // A place cut short misleads more than it helps: all of it or nothing.
      if (place !== "" && place.length <= placeRoom) {
        context.fillStyle = hit ? palette.matchText : faded ? palette.fadedText : palette.textSoft;
        context.fillText(place, left + 4 + (label.length + 2) * charWidth, middle);
      }
    }
    if (scene.hover >= layout.rowStart[row] && scene.hover < layout.rowStart[row + 1]) {
      outline(context, scene, scene.hover, row, false);
    }
    if (scene.focus >= layout.rowStart[row] && scene.focus < layout.rowStart[row + 1]) {
      outline(context, scene, scene.focus, row, true);
    }
  }
}
