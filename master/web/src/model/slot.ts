// A satellite's slot as the API shows it, and what an operator should look at about it. Decides when a figure is worth a warning.
import { bytes, counted, offset } from './quantity';
import { span } from './age';
import { type Fields, fields, flag, maybe, number, text, time } from './reading';

/** A wall clock that was set. */
export interface Step {
  readonly at: number;
  readonly byMs: number;
}

export function readStep(of: Fields, name: string): Step {
  const step = fields(of[name], name);
  return { at: time(step, 'at'), byMs: number(step, 'by_ms') };
}

/** The slot that something is about, `region/number`. */
export function slotNamed(of: Fields): string {
  return `${text(of, 'region')}/${number(of, 'slot')}`;
}

/** The same of what may be about none. History has it in one field, all else in two. */
export function maybeSlot(of: Fields): string | null {
  return maybe(of, 'region', text) === null ? maybe(of, 'slot', text) : slotNamed(of);
}

export interface Slot {
  readonly region: string;
  readonly slot: number;
  readonly expected: boolean;
  readonly connected: boolean;
  readonly present: boolean;
  /** The operator who took it out of service. */
  readonly drained: string | null;
  /** Since when it is lost. */
  readonly lost: number | null;
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
  /** `OK`, `WARNING` or `CRITICAL`. */
  readonly clock: string | null;
  readonly clockSlew: number | null;
  readonly clockStep: Step | null;
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
    drained: maybe(of, 'drained', text),
    lost: maybe(of, 'lost', time),
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
    clock: maybe(of, 'clock', text),
    clockSlew: maybe(of, 'clock_slew_ms', number),
    clockStep: maybe(of, 'clock_step', readStep),
    refused: number(of, 'refused'),
    lastResult: maybe(of, 'last_result', time),
    others: maybe(of, 'others', number) ?? 0,
  };
}

/** How a slot is, in a word. `lost`, `missing` and `silent` want somebody; `drained` is an operator's wish; `gone` is a slot no longer asked for. */
export type Condition = 'connected' | 'drained' | 'silent' | 'lost' | 'missing' | 'gone';

export function condition(slot: Slot): Condition {
  if (slot.drained !== null) return 'drained';
  if (slot.lost !== null) return 'lost';
  if (slot.connected && !slot.stale) return 'connected';
  if (slot.connected) return 'silent';
  return slot.expected ? 'missing' : 'gone';
}

/** A step of a clock is news for this long. */
const STEP_NOTED_MS = 24 * 3600 * 1000;
/** A spool that lags this far behind is more than a hiccup of the network. */
const LAG_NOTED_S = 60;

/** What an operator should know about a slot beyond its figures, worst first. `generation` is the running one. */
export function remarks(slot: Slot, generation: number, now: number): string[] {
  const remarks: string[] = [];
  if (slot.drained !== null) {
    const rest = slot.checks > 0 ? `, and goes on with ${counted(slot.checks, 'check')} that no other slot can take over` : '';
    remarks.push(`drained by ${slot.drained}${rest}${slot.connected ? '' : '; not connected'}`);
  }
  if (slot.memoryOnly) remarks.push('its spool cannot be written: results are in memory only');
  else if (slot.spoolFull) remarks.push('its spool is full: the oldest results go');
  if (slot.givenUp > 0) remarks.push(`${counted(slot.givenUp, 'result')} given up: gaps name them`);
  if (condition(slot) === 'missing' || condition(slot) === 'lost') {
    if (slot.since === null) remarks.push('has never connected');
    else if (slot.checks > 0) remarks.push(`nothing is heard of its ${counted(slot.checks, 'check')}`);
  }
  if (slot.others > 0) remarks.push(`${counted(slot.others, 'further process', 'further processes')} connected for this slot`);
  if (slot.undelivered && (slot.lagSeconds ?? 0) >= LAG_NOTED_S) {
    remarks.push(`delivery lags ${span((slot.lagSeconds ?? 0) * 1000)}, ${bytes(slot.spoolBytes ?? 0)} in its spool`);
  }
  if (slot.clockOffset !== null && (slot.clock === 'WARNING' || slot.clock === 'CRITICAL')) {
    remarks.push(`its clock is off by ${offset(slot.clockOffset)}; times of its results are corrected`);
  }
  if (slot.clockSlew !== null && Math.abs(slot.clockSlew) >= 1000) {
    remarks.push(`its checks are on their way to the master's time, ${offset(slot.clockSlew)} to go`);
  }
  if (slot.clockStep !== null && now - slot.clockStep.at < STEP_NOTED_MS) {
    remarks.push(`its clock was set by ${offset(slot.clockStep.byMs)}, ${span(now - slot.clockStep.at)} ago`);
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
  /** Expected, not connected, and nobody has drained them. */
  readonly missing: number;
}

/** Connected and heard, whether it may own checks or is drained. */
const isHere = (slot: Slot) => slot.connected && !slot.stale;

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
    connected: of.filter((slot) => slot.expected && isHere(slot)).length,
    missing: of.filter((slot) => slot.expected && !isHere(slot) && slot.drained === null).length,
  }));
  const later = (region: Region) => (region.missing > 0 ? 0 : 1);
  return made.sort((a, b) => later(a) - later(b) || (a.name < b.name ? -1 : 1));
}
