// Which rows of a long list are worth having in the document: those in sight and a few around them. Rows are equally high.

/** Rows kept above and below what is in sight, so that a flick of the wheel shows no hole. */
const AROUND = 8;

export interface Window {
  readonly first: number;
  /** Exclusive. */
  readonly end: number;
}

export function windowOf(scrolled: number, height: number, row: number, count: number): Window {
  const top = Math.floor(Math.max(0, scrolled) / row);
  const first = Math.min(Math.max(0, top - AROUND), count);
  const end = Math.min(count, Math.ceil((Math.max(0, scrolled) + height) / row) + AROUND);
  return { first, end: Math.max(first, end) };
}

/** Where to scroll so that a row is wholly in sight; the same place if it is. */
export function revealing(row: number, scrolled: number, height: number, rowHeight: number): number {
  const top = row * rowHeight;
  if (top < scrolled) return top;
  return top + rowHeight > scrolled + height ? top + rowHeight - height : scrolled;
}
