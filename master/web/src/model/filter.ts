// The filter of lists in the API's own grammar, for lists that are here already: words, `field=value`, `field!=value`, `*` and `?`,
// double quotes. Terms of one field with `=` widen, everything else narrows. The one difference: a bare word is looked for in the
// output too. An unknown field is an error, never an empty list.
import { type Item, slotName } from './item';
import { isProblem } from './state';

type Texts = (item: Item) => readonly string[];

const FIELDS: Readonly<Record<string, Texts>> = {
  host: (item) => [item.host],
  service: (item) => (item.service === null ? [] : [item.service]),
  region: (item) => (item.region === null ? [] : [item.region]),
  slot: (item) => (item.slot === null ? [] : [String(item.slot)]),
  state: (item) => [item.state],
  state_type: (item) => [item.stateType],
  problem: (item) => [String(isProblem(item.state))],
  stale: (item) => [String(item.stale)],
  group: (item) => item.groups,
  command: (item) => [item.command],
};
/** Fields whose values are spelled in one way, whatever the reader types. */
const SPELLED: Readonly<Record<string, (value: string) => string>> = {
  state: (value) => value.toUpperCase(),
  state_type: (value) => value.toUpperCase(),
  problem: (value) => value.toLowerCase(),
  stale: (value) => value.toLowerCase(),
};

export type Filter = { readonly error: string } | { readonly fits: (item: Item) => boolean };

/** `*` is any text, `?` one character; the whole text must fit. */
export function fitsGlob(pattern: string, value: string): boolean {
  const [wanted, given] = [[...pattern], [...value]];
  let [at, position] = [0, 0];
  let [afterStar, from] = [-1, 0];
  while (position < given.length) {
    if (wanted[at] === '*') {
      at += 1;
      [afterStar, from] = [at, position];
    } else if (at < wanted.length && (wanted[at] === '?' || wanted[at] === given[position])) {
      at += 1;
      position += 1;
    } else if (afterStar >= 0) {
      from += 1;
      [at, position] = [afterStar, from];
    } else {
      return false;
    }
  }
  return wanted.slice(at).every((rest) => rest === '*');
}

function words(text: string): string[] | null {
  const found: string[] = [];
  let [word, begun, quoted] = ['', false, false];
  for (const c of text) {
    if (c === '"') {
      quoted = !quoted;
      begun = true;
    } else if (/\s/u.test(c) && !quoted) {
      if (begun) found.push(word);
      [word, begun] = ['', false];
    } else {
      word += c;
      begun = true;
    }
  }
  if (begun) found.push(word);
  return quoted ? null : found;
}

export function parseFilter(text: string): Filter {
  const terms = words(text);
  if (terms === null) return { error: 'a quote is opened and not closed' };
  const tests: ((item: Item) => boolean)[] = [];
  const alternatives = new Map<string, string[]>();
  for (const term of terms) {
    const equals = term.indexOf('=');
    if (equals < 0) {
      const word = term.toLowerCase();
      const wild = /[*?]/u.test(word);
      tests.push((item) =>
        [item.host, item.service ?? '', item.output, slotName(item.region, item.slot)].some((value) =>
          wild ? fitsGlob(word, value.toLowerCase()) : value.toLowerCase().includes(word),
        ),
      );
      continue;
    }
    const negated = term[equals - 1] === '!';
    const field = term.slice(0, negated ? equals - 1 : equals);
    const texts = Object.hasOwn(FIELDS, field) ? FIELDS[field] : undefined;
    if (!texts) return { error: `there is no field “${field}”; fields are ${Object.keys(FIELDS).join(', ')}` };
    const value = term.slice(equals + 1);
    const pattern = SPELLED[field]?.(value) ?? value;
    if (negated) tests.push((item) => !texts(item).some((given) => fitsGlob(pattern, given)));
    else alternatives.set(field, [...(alternatives.get(field) ?? []), pattern]);
  }
  for (const [field, patterns] of alternatives) {
    const texts = FIELDS[field];
    if (texts) tests.push((item) => texts(item).some((given) => patterns.some((pattern) => fitsGlob(pattern, given))));
  }
  return { fits: (item) => tests.every((test) => test(item)) };
}
