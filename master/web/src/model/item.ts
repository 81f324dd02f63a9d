// A host or a service as the API shows it, and the order of the list of problems. Times are milliseconds since 1970 by the master's clock.
import { type Fields, fields, flag, list, maybe, number, text, time } from './reading';
import { type State, type StateType, readState, readStateType, severity } from './state';

/** One value of performance data. Thresholds are as the plugin wrote them: a number or a range. */
export interface Metric {
  readonly label: string;
  readonly value: number;
  readonly unit: string;
  readonly warn: string | null;
  readonly crit: string | null;
  readonly min: number | null;
  readonly max: number | null;
}

export interface Item {
  /** Tells it from every other; see `keyOf`. */
  readonly key: string;
  readonly host: string;
  /** `null`: the host itself. */
  readonly service: string | null;
  readonly region: string | null;
  readonly slot: number | null;
  readonly state: State;
  readonly stateType: StateType;
  readonly attempt: number;
  readonly maxAttempts: number;
  readonly output: string;
  readonly longOutput: string;
  readonly metrics: readonly Metric[];
  readonly lastCheck: number | null;
  readonly nextCheck: number | null;
  readonly lastChange: number | null;
  readonly lastHardChange: number | null;
  /** What is shown may be out of date. */
  readonly stale: boolean;
  /** Why, in the API's word: `silent`, `unsettled`, `nobody`. */
  readonly staleReason: string | null;
  /** Seconds. */
  readonly duration: number | null;
  readonly authenticated: boolean | null;
  readonly passive: boolean;
  readonly command: string;
  readonly groups: readonly string[];
  /** Journal index of the last row that changed anything of it. */
  readonly version: number;
}

/** A host and a service can never share a key: names hold no `!`. */
export function keyOf(host: string, service: string | null): string {
  return service === null ? host : `${host}!${service}`;
}

/** The slot as people write it, `region/number`. */
export function slotName(region: string | null, slot: number | null): string {
  return slot === null ? 'none' : `${region ?? '?'}/${slot}`;
}

const STALE: Readonly<Record<string, string>> = {
  silent: 'its slot is silent',
  unsettled: 'its slot is back and has not told its newest state yet',
  nobody: 'no slot checks it',
};

/** Why what is shown may be out of date; `null` if it is not. */
export function staleness(item: Item): string | null {
  if (!item.stale) return null;
  return (item.staleReason !== null && Object.hasOwn(STALE, item.staleReason) ? STALE[item.staleReason] : null) ?? 'its slot is silent';
}

function threshold(of: Fields, name: string): string | null {
  const value = of[name];
  return typeof value === 'number' || typeof value === 'string' ? String(value) : null;
}

function readMetric(value: unknown): Metric {
  const of = fields(value, 'metrics');
  return {
    label: text(of, 'label'),
    value: number(of, 'value'),
    unit: text(of, 'unit'),
    warn: threshold(of, 'warn'),
    crit: threshold(of, 'crit'),
    min: maybe(of, 'min', number),
    max: maybe(of, 'max', number),
  };
}

export function readItem(value: unknown): Item {
  const of = fields(value, 'items');
  const host = text(of, 'host');
  const service = maybe(of, 'service', text);
  return {
    key: keyOf(host, service),
    host,
    service,
    region: maybe(of, 'region', text),
    slot: maybe(of, 'slot', number),
    state: readState(of, 'state'),
    stateType: readStateType(of, 'state_type'),
    attempt: number(of, 'attempt'),
    maxAttempts: number(of, 'max_attempts'),
    output: text(of, 'output'),
    longOutput: maybe(of, 'long_output', text) ?? '',
    metrics: (maybe(of, 'metrics', (from, name) => list(from[name], name)) ?? []).map(readMetric),
    lastCheck: maybe(of, 'last_check', time),
    nextCheck: maybe(of, 'next_check', time),
    lastChange: maybe(of, 'last_change', time),
    lastHardChange: maybe(of, 'last_hard_change', time),
    stale: maybe(of, 'stale', flag) ?? false,
    staleReason: maybe(of, 'stale_reason', text),
    duration: maybe(of, 'duration', number),
    authenticated: maybe(of, 'authenticated', flag),
    passive: maybe(of, 'passive', flag) ?? false,
    command: maybe(of, 'command', text) ?? '',
    groups: (maybe(of, 'groups', (from, name) => list(from[name], name)) ?? []).filter((group) => typeof group === 'string'),
    version: maybe(of, 'version', number) ?? 0,
  };
}

/** Worst first; of equals the newest first; then by name, so that the order never jumps by itself. */
export function worstFirst(a: Item, b: Item): number {
  return (
    severity(b.state, b.stateType) - severity(a.state, a.stateType) ||
    (b.lastChange ?? 0) - (a.lastChange ?? 0) ||
    (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
  );
}
