// A satellite's slot as the API shows it, and what an operator should look at about it. Decides when a figure is worth a warning.
import { bytes, counted, offset } from './quantity';
import { span } from './age';
import { fields, flag, maybe, number, text, time } from './reading';

export interface Slot {
  readonly region: string;
  readonly slot: number;
  readonly expected: boolean;
  readonly connected: boolean;
  readonly present: boolean;
  readonly stale: boolean;
  readonly remote: string | null;
  readonly software: string | null;
  readonly since: number | null;
  readonly silentSeconds: number | null;
  readonly appliedGeneration: number | null;
  readonly checks: number;
  readonly hosts: number;
  readonly undelivered: number | null;
  readonly spoolBytes: number | null;
  readonly lagSeconds: number | null;
  readonly late: number | null;
  readonly memoryOnly: boolean;
  readonly spoolFull: boolean;
  readonly givenUp: number;
  readonly clockOffset: number | null;
  readonly refused: number;
  readonly lastResult: number | null;
  readonly others: number;
}

export function readSlot(value: unknown): Slot {
  const of = fields(value, 'slots');
  return {
    region: text(of, 'region'),
    slot: number(of, 'slot'),
    expected: flag(of, 'expected'),
    connected: flag(of, 'connected'),
    present: flag(of, 'present'),
    stale: flag(of, 'stale'),
    remote: maybe(of, 'remote', text),
    software: maybe(of, 'software', text),
    since: maybe(of, 'since', time),
    silentSeconds: maybe(of, 'silent_seconds', number),
    appliedGeneration: maybe(of, 'applied_generation', number),
    checks: number(of, 'checks'),
    hosts: number(of, 'hosts'),
    undelivered: maybe(of, 'undelivered', number),
    spoolBytes: maybe(of, 'spool_bytes', number),
    lagSeconds: maybe(of, 'lag_seconds', number),
    late: maybe(of, 'late', number),
    memoryOnly: maybe(of, 'memory_only', flag) ?? false,
    spoolFull: maybe(of, 'spool_full', flag) ?? false,
    givenUp: maybe(of, 'given_up', number) ?? 0,
    clockOffset: maybe(of, 'clock_offset_ms', number),
    refused: number(of, 'refused'),
    lastResult: maybe(of, 'last_result', time),
    others: maybe(of, 'others', number) ?? 0,
  };
}

/** How a slot is, in a word. `missing` and `silent` want somebody; `gone` is a slot no longer asked for. */
export type Condition = 'connected' | 'silent' | 'missing' | 'gone';

export function condition(slot: Slot): Condition {
  if (slot.connected && !slot.stale) return 'connected';
  if (slot.connected) return 'silent';
  return slot.expected ? 'missing' : 'gone';
}

/** A clock that is off by more than this makes times on the page hard to compare. */
const OFFSET_NOTED_MS = 1000;
/** A spool that lags this far behind is more than a hiccup of the network. */
const LAG_NOTED_S = 60;

/** What an operator should know about a slot beyond its figures, worst first. `generation` is the running one. */
export function remarks(slot: Slot, generation: number): string[] {
  const remarks: string[] = [];
  if (slot.memoryOnly) remarks.push('its spool cannot be written: results are in memory only');
  else if (slot.spoolFull) remarks.push('its spool is full: the oldest results go');
  if (slot.givenUp > 0) remarks.push(`${counted(slot.givenUp, 'result')} given up: gaps name them`);
  if (condition(slot) === 'missing') {
    if (slot.since === null) remarks.push('has never connected');
    else if (slot.checks > 0) remarks.push(`nothing is heard of its ${counted(slot.checks, 'check')}`);
  }
  if (slot.others > 0) remarks.push(`${counted(slot.others, 'further process', 'further processes')} connected for this slot`);
  if (slot.undelivered && (slot.lagSeconds ?? 0) >= LAG_NOTED_S) {
    remarks.push(`delivery lags ${span((slot.lagSeconds ?? 0) * 1000)}, ${bytes(slot.spoolBytes ?? 0)} in its spool`);
  }
  if (slot.clockOffset !== null && Math.abs(slot.clockOffset) >= OFFSET_NOTED_MS) {
    remarks.push(`its clock is off by ${offset(slot.clockOffset)}`);
  }
  if (slot.connected && slot.appliedGeneration !== null && slot.appliedGeneration !== generation) {
    remarks.push(`still runs generation ${slot.appliedGeneration}`);
  }
  if (slot.refused > 0) remarks.push(`${counted(slot.refused, 'result')} refused`);
  if (slot.late) remarks.push(`${counted(slot.late, 'check')} began late`);
  return remarks;
}

export interface Region {
  readonly name: string;
  readonly slots: readonly Slot[];
  readonly expected: number;
  readonly connected: number;
}

/** Slots by region, regions with missing slots first, then by name. */
export function regions(slots: readonly Slot[]): Region[] {
  const names = new Map<string, Slot[]>();
  for (const slot of slots) {
    const of = names.get(slot.region);
    if (of) of.push(slot);
    else names.set(slot.region, [slot]);
  }
  const made = [...names].map(([name, of]) => ({
    name,
    slots: of.toSorted((a, b) => a.slot - b.slot),
    expected: of.filter((slot) => slot.expected).length,
    connected: of.filter((slot) => slot.expected && condition(slot) === 'connected').length,
  }));
  const missing = (region: Region) => (region.connected < region.expected ? 0 : 1);
  return made.sort((a, b) => missing(a) - missing(b) || (a.name < b.name ? -1 : 1));
}

/** Results that will never come, as the master knows of them. */
export interface Gap {
  readonly key: string;
  readonly at: number;
  readonly region: string;
  readonly slot: number;
  readonly lost: number;
  /** Nobody knows how many more: the end of a run could not be read. */
  readonly open: boolean;
  readonly from: number | null;
  readonly to: number | null;
  readonly reason: string;
  readonly explained: boolean;
}

export function readGap(value: unknown): Gap {
  const of = fields(value, 'gaps');
  return {
    key: `${number(of, 'index')} ${text(of, 'run')} ${number(of, 'first')}`,
    at: time(of, 'at'),
    region: text(of, 'region'),
    slot: number(of, 'slot'),
    lost: number(of, 'lost'),
    open: text(of, 'reason') === 'spool-end-unknown',
    from: maybe(of, 'from', time),
    to: maybe(of, 'to', time),
    reason: text(of, 'reason'),
    explained: flag(of, 'explained'),
  };
}
