// Reads fields out of JSON answers, checking each: an answer of another shape becomes one named error, never `undefined` somewhere
// on the page. Knows no particular answer.

/** An answer this page does not understand; most likely the master is newer than the page that is open. */
export class Unreadable extends Error {}

export type Fields = Readonly<Record<string, unknown>>;

function wrong(name: string, wanted: string): never {
  throw new Unreadable(`the master's answer has no ${wanted} in “${name}”; reload the page`);
}

export function fields(value: unknown, where: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) wrong(where, 'fields');
  return value as Fields;
}

export function list(value: unknown, where: string): readonly unknown[] {
  if (!Array.isArray(value)) wrong(where, 'list');
  return value;
}

export function text(of: Fields, name: string): string {
  const value = of[name];
  return typeof value === 'string' ? value : wrong(name, 'text');
}

export function number(of: Fields, name: string): number {
  const value = of[name];
  return typeof value === 'number' && Number.isFinite(value) ? value : wrong(name, 'number');
}

export function flag(of: Fields, name: string): boolean {
  const value = of[name];
  return typeof value === 'boolean' ? value : wrong(name, 'yes or no');
}

/** Milliseconds since 1970 of an RFC 3339 time. */
export function time(of: Fields, name: string): number {
  const value = Date.parse(text(of, name));
  return Number.isNaN(value) ? wrong(name, 'time') : value;
}

/** `null` where the field is missing or null; otherwise as `read` reads it. */
export function maybe<T>(of: Fields, name: string, read: (of: Fields, name: string) => T): T | null {
  return of[name] === undefined || of[name] === null ? null : read(of, name);
}
