// One list of all hosts or all services, page by page as the reader scrolls, kept fresh while it is looked at. Filter and order are the
// API's. A filter that cannot be meant is shown as the API's own words.
import { type Item, readItem } from '../model/item';
import type { Change } from '../model/news';
import { type Client, Refused } from './client';
import { items, page } from './lists';

/** Rows asked for at once. */
const PAGE = 200;
/** Rows held at most; beyond it the reader is asked to narrow the filter. */
export const ROWS_MAX = 10_000;

export class Listing {
  rows = $state.raw<readonly Item[]>([]);
  total = $state<number | null>(null);
  error = $state<string | null>(null);
  loading = $state(false);
  #next: string | null = null;
  /** Only the newest question may answer. */
  #asked = 0;

  constructor(
    readonly client: Client,
    readonly path: '/hosts' | '/services',
    readonly filter: string,
  ) {}

  get whole(): boolean {
    return this.total !== null && (this.#next === null || this.rows.length >= ROWS_MAX);
  }

  /** The first page, or again what is there. */
  async read(): Promise<void> {
    await this.#ask(async () => {
      const found = await items(this.client, this.path, Math.max(PAGE, this.rows.length), this.filter);
      return { rows: found.items, total: found.total, next: found.next };
    });
  }

  async more(): Promise<void> {
    if (this.loading || this.whole || this.total === null) return;
    const [before, cursor] = [this.rows, this.#next];
    await this.#ask(async () => {
      const found = await page(this.client, this.path, readItem, { filter: this.filter, limit: PAGE, cursor });
      const known = new Set(before.map((row) => row.key));
      return { rows: [...before, ...found.items.filter((row) => !known.has(row.key))], total: found.total, next: found.next };
    });
  }

  /** Rows that are here show their new state at once; which rows fit the filter is asked for with the next reading. */
  patch(changes: readonly Change[]): void {
    const newest = new Map(changes.map((change) => [change.item.key, change.item]));
    if (!this.rows.some((row) => newest.has(row.key))) return;
    this.rows = this.rows.map((row) => {
      const changed = newest.get(row.key);
      return changed && changed.version >= row.version ? changed : row;
    });
  }

  async #ask(question: () => Promise<{ rows: readonly Item[]; total: number; next: string | null }>): Promise<void> {
    this.#asked += 1;
    const mine = this.#asked;
    this.loading = true;
    try {
      const { rows, total, next } = await question();
      if (mine !== this.#asked) return;
      [this.rows, this.total, this.#next, this.error] = [rows, total, next, null];
    } catch (error) {
      if (mine !== this.#asked) return;
      this.error = error instanceof Refused || this.total === null ? (error instanceof Error ? error.message : String(error)) : null;
    } finally {
      if (mine === this.#asked) this.loading = false;
    }
  }
}
