// Which rows of a long list are in view: rows have one height, so this is arithmetic.

export interface RowRange {
  from: number;
  to: number; // exclusive
}

export function visibleRows(count: number, rowHeight: number, scrollTop: number, height: number, extra = 4): RowRange {
  const from = Math.max(0, Math.min(count, Math.floor(scrollTop / rowHeight)) - extra);
  const to = Math.min(count, Math.ceil((scrollTop + height) / rowHeight) + extra);
  return { from, to: Math.max(from, to) };
}

/** The scroll position that brings a row into view with the least movement. */
export function scrollToRow(row: number, rowHeight: number, scrollTop: number, height: number): number {
  const top = row * rowHeight;
  if (top < scrollTop) return top;
  if (top + rowHeight > scrollTop + height) return top + rowHeight - height;
  return scrollTop;
}
