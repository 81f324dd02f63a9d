// What happened, as events of the stream and as lines of the feed. The same happening read from history and from the stream has the
// same key, so that it is shown once.
import { results, whoseGap } from './gap';
import { type Item, keyOf, readItem } from './item';
import { counted, offset } from './quantity';
import { type Fields, fields, flag, list, maybe, number, text, time } from './reading';
import { maybeSlot, slotNamed } from './slot';
import { type State, type StateType, isProblem, readState, readStateType } from './state';

/** A change of one object's state, with the object it left. */
export interface Change {
  readonly index: number;
  readonly item: Item;
  readonly from: State;
}

export type StreamEvent =
  | { readonly kind: 'change'; readonly changes: readonly Change[]; readonly news: readonly News[] }
  | { readonly kind: 'slot' | 'gap' | 'activation'; readonly news: readonly News[] }
  | { readonly kind: 'link'; readonly region: string; readonly slot: number; readonly connected: boolean; readonly stale: boolean }
  | { readonly kind: 'command' }
  | { readonly kind: 'resync'; readonly reason: string };

interface Told {
  readonly key: string;
  readonly index: number;
  readonly at: number;
}

/** One line of the feed: a change of state, or something told in words. */
export type News =
  | (Told & {
      readonly kind: 'state';
      readonly object: string;
      readonly host: string;
      readonly service: string | null;
      readonly from: State;
      readonly to: State;
      readonly stateType: StateType;
      readonly attempt: number;
      readonly maxAttempts: number;
      readonly output: string;
      readonly late: boolean;
    })
  | (Told & { readonly kind: 'slot' | 'gap' | 'activation'; readonly title: string; readonly line: string; readonly bad: boolean });

/** One row may change an object several times; what it became tells the changes apart. */
function changeKey(index: number, object: string, of: Fields): string {
  return `${index} ${object} ${text(of, 'state')} ${text(of, 'state_type')} ${number(of, 'attempt')}`;
}

/** First results that are good: a whole installation coming up, and no news. */
function isNews(line: News): boolean {
  return line.kind !== 'state' || line.from !== 'PENDING' || isProblem(line.to);
}

const PRESENCE: Readonly<Record<string, string>> = {
  silent: 'silent for too long',
  stable: 'back and stable',
  joined: 'here for the first time',
};

function slotNews(of: Fields, what: string, at: number): News {
  const [index, name] = [number(of, 'index'), slotNamed(of)];
  const told = { kind: 'slot' as const, key: `${index} ${what} ${name}`, index, at, title: `slot ${name}` };
  if (what === 'presence') {
    const present = maybe(of, 'present', flag) ?? false;
    const drain = maybe(of, 'drain', flag);
    const author = maybe(of, 'author', text) ?? 'an operator';
    if (drain === true) return { ...told, line: `drained by ${author}: its hosts go to other slots`, bad: false };
    if (drain === false) return { ...told, line: `given back by ${author}: it may own checks when it is stable`, bad: false };
    const reason = maybe(of, 'reason', text) ?? '';
    const why = Object.hasOwn(PRESENCE, reason) ? PRESENCE[reason] : reason;
    return { ...told, line: `${present ? 'may own checks' : 'is out: its hosts move to other slots'}${why ? `, ${why}` : ''}`, bad: !present };
  }
  if (what === 'fence') return { ...told, line: 'a process lost it to a newer one', bad: false };
  const software = maybe(of, 'software', text);
  const remote = maybe(of, 'remote', text);
  return { ...told, line: `taken by a satellite${software ? ` ${software}` : ''}${remote ? ` from ${remote}` : ''}`, bad: false };
}

/** What befell the fleet, what operators said about it, and clocks that were set. */
function fleetNews(of: Fields, kind: string, at: number): News {
  const index = number(of, 'index');
  const slot = maybeSlot(of);
  const told = { kind: 'slot' as const, key: `${index} ${kind} ${slot ?? ''}`, index, at, title: slot === null ? 'master' : `slot ${slot}` };
  const author = maybe(of, 'author', text);
  if (kind === 'moves') {
    const held = maybe(of, 'held', flag) ?? false;
    return { ...told, title: 'moves', line: `${held ? 'held back' : 'go on'}${author ? `, as ${author} said` : ''}`, bad: held };
  }
  if (kind === 'clock') return { ...told, line: `clock set by ${offset(number(of, 'by_ms'))}`, bad: true };
  const [open, checks] = [flag(of, 'open'), number(of, 'checks')];
  if (text(of, 'incident') === 'cut-off') {
    const line = open
      ? `cut off: ${counted(number(of, 'slots'), 'slot')} fell silent together, no host is moved`
      : `no longer cut off${author ? `, as ${author} said` : ''}`;
    return { ...told, line, bad: open };
  }
  const moved = number(of, 'moved');
  const line = open ? `lost with ${counted(checks, 'check')}${moved > 0 ? `, ${moved.toLocaleString('en-GB')} went to other slots` : ''}` : 'is lost no more';
  return { ...told, line, bad: open };
}

function activationNews(of: Fields, at: number): News {
  const [index, generation] = [number(of, 'index'), number(of, 'generation')];
  const author = maybe(of, 'author', text);
  const line = `runs${author ? `, asked for by ${author}` : ''}`;
  return { kind: 'activation', key: `${index} activation`, index, at, title: `generation ${generation}`, line, bad: false };
}

function gapNews(of: Fields, index: number, at: number): News {
  const writer = maybe(of, 'writer', text);
  const name = whoseGap(of);
  const [first, last] = [number(of, 'first'), number(of, 'last')];
  const explained = maybe(of, 'explained', flag) ?? false;
  const what = writer === null ? `${results(last - first + 1, maybe(of, 'open_ended', flag) ?? false)} lost` : `rows ${first} to ${last} not sent`;
  const line = `${what}: ${text(of, 'reason')}${explained ? '' : ', unexplained'}`;
  return { kind: 'gap', key: `${index} gap ${maybe(of, 'run', text) ?? ''} ${first}`, index, at, title: `gap in ${name}`, line, bad: true };
}

function readChange(value: unknown, index: number, at: number): { change: Change; news: News } {
  const of = fields(value, 'changes');
  const item = readItem(of);
  const from = readState(fields(of['from'], 'from'), 'state');
  const news: News = {
    kind: 'state',
    key: changeKey(index, item.key, of),
    index,
    at,
    object: item.key,
    host: item.host,
    service: item.service,
    from,
    to: item.state,
    stateType: item.stateType,
    attempt: item.attempt,
    maxAttempts: item.maxAttempts,
    output: item.output,
    late: false,
  };
  return { change: { index, item, from }, news };
}

/** An event of the stream; `null` for kinds that this page does not know, which an older page may meet. */
export function readEvent(event: string, data: string): StreamEvent | null {
  if (!['change', 'slot', 'gap', 'activation', 'link', 'resync', 'incident', 'moves', 'clock', 'command'].includes(event)) return null;
  const of = fields(JSON.parse(data), event);
  switch (event) {
    case 'change': {
      const [index, at] = [number(of, 'index'), time(of, 'at')];
      const read = list(of['changes'], 'changes').map((change) => readChange(change, index, at));
      return { kind: 'change', changes: read.map(({ change }) => change), news: read.map(({ news }) => news).filter(isNews) };
    }
    case 'slot':
      return { kind: 'slot', news: [slotNews(of, text(of, 'what'), time(of, 'at'))] };
    case 'incident':
    case 'moves':
    case 'clock':
      return { kind: 'slot', news: [fleetNews(of, event, time(of, 'at'))] };
    case 'gap': {
      const [index, at] = [number(of, 'index'), time(of, 'at')];
      return { kind: 'gap', news: list(of['gaps'], 'gaps').map((gap) => gapNews(fields(gap, 'gaps'), index, at)) };
    }
    case 'activation':
      return { kind: 'activation', news: [activationNews(of, time(of, 'at'))] };
    case 'link':
      return {
        kind: 'link',
        region: text(of, 'region'),
        slot: number(of, 'slot'),
        connected: flag(of, 'connected'),
        stale: flag(of, 'stale'),
      };
    case 'command':
      return { kind: 'command' };
    default:
      return { kind: 'resync', reason: maybe(of, 'reason', text) ?? '' };
  }
}

/** Kinds of history that `readPast` knows. */
export const PAST_KINDS = ['transition', 'claim', 'presence', 'gap', 'activation', 'incident', 'moves', 'clock'];

/** A line of the feed out of history; `null` for what is no news. */
export function readPast(value: unknown): News | null {
  const line = readPastLine(value);
  return line !== null && isNews(line) ? line : null;
}

function readPastLine(value: unknown): News | null {
  const of = fields(value, 'events');
  const at = time(of, 'time');
  switch (text(of, 'kind')) {
    case 'transition': {
      const [index, host, service] = [number(of, 'index'), text(of, 'host'), maybe(of, 'service', text)];
      const object = keyOf(host, service);
      return {
        kind: 'state',
        key: changeKey(index, object, of),
        index,
        at,
        object,
        host,
        service,
        from: readState(of, 'from_state'),
        to: readState(of, 'state'),
        stateType: readStateType(of, 'state_type'),
        attempt: number(of, 'attempt'),
        maxAttempts: number(of, 'max_attempts'),
        output: text(of, 'output'),
        late: maybe(of, 'late', flag) ?? false,
      };
    }
    case 'claim':
    case 'presence':
      return slotNews(of, text(of, 'kind'), at);
    case 'incident':
    case 'moves':
    case 'clock':
      return fleetNews(of, text(of, 'kind'), at);
    case 'gap':
      return gapNews(of, number(of, 'index'), at);
    case 'activation':
      return activationNews(of, at);
    default:
      return null;
  }
}
