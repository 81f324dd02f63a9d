// The API's lists as whole things: pages are asked for one after the other until all is there or a bound is reached.
import { type Item, readItem } from '../model/item';
import { type Fields, fields, list, maybe, number, text } from '../model/reading';
import type { Client } from './client';

/** Items of one page at most, as the API has it. */
const PAGE = 1000;

export interface Page<T> {
  readonly items: readonly T[];
  /** Items that fit, on all pages. */
  readonly total: number;
  readonly next: string | null;
  /** Journal index that the page is true for. */
  readonly index: number;
}

export async function page<T>(
  client: Client,
  path: string,
  read: (value: unknown) => T,
  parameters: Readonly<Record<string, string | number | null>> = {},
): Promise<Page<T>> {
  const of: Fields = fields(await client.ask(path, parameters), path);
  return {
    items: list(of['items'], 'items').map(read),
    total: maybe(of, 'total', number) ?? 0,
    next: maybe(of, 'next', text),
    index: maybe(of, 'index', number) ?? 0,
  };
}

/** Up to `most` items. The index is the first page's: what the others have besides is newer. */
export async function items(client: Client, path: string, most: number, filter: string): Promise<Page<Item>> {
  const found: Item[] = [];
  let [cursor, first]: [string | null, Page<Item> | null] = [null, null];
  do {
    const limit = Math.min(PAGE, most - found.length);
    const part: Page<Item> = await page(client, path, readItem, { filter, limit, cursor });
    first ??= part;
    found.push(...part.items);
    cursor = part.next;
  } while (cursor !== null && found.length < most);
  return { items: found, total: first.total, next: cursor, index: first.index };
}
