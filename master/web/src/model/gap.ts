// Results that will never come, as the API tells of them, and their words. What a reason means is the master's to say.
import { moment } from './age';
import { counted } from './quantity';
import { type Fields, fields, flag, maybe, number, text, time } from './reading';
import { slotNamed } from './slot';

export interface Gap {
  readonly key: string;
  readonly at: number;
  /** `region/slot`, or the name of a writer. */
  readonly whose: string;
  /** `null` where nobody knows: a writer counts rows. */
  readonly lost: number | null;
  /** Nobody knows how many more. */
  readonly open: boolean;
  readonly from: number | null;
  readonly to: number | null;
  readonly reason: string;
  /** The reason in a sentence; `null` where its name says all. */
  readonly meaning: string | null;
  readonly explained: boolean;
}

/** Whose results or rows they are. */
export function whoseGap(of: Fields): string {
  return maybe(of, 'writer', text) ?? slotNamed(of);
}

export function readGap(value: unknown): Gap {
  const of = fields(value, 'gaps');
  return {
    key: `${number(of, 'index')} ${maybe(of, 'run', text) ?? ''} ${number(of, 'first')}`,
    at: time(of, 'at'),
    whose: whoseGap(of),
    lost: maybe(of, 'lost', number),
    open: flag(of, 'open_ended'),
    from: maybe(of, 'from', time),
    to: maybe(of, 'to', time),
    reason: text(of, 'reason'),
    meaning: maybe(of, 'meaning', text),
    explained: flag(of, 'explained'),
  };
}

/** So many results, or more. */
export function results(lost: number, open: boolean): string {
  return `${open ? 'at least ' : ''}${counted(lost, 'result')}`;
}

export function lostOf(gap: Gap): string {
  return gap.lost === null ? 'rows not sent' : results(gap.lost, gap.open);
}

/** When the lost results were made, as far as that is known. */
export function madeAt(gap: Gap, now: number): string {
  if (gap.from === null) return '';
  const from = moment(gap.from, now);
  if (gap.to === null) return gap.open ? `since ${from}` : '';
  const to = moment(gap.to, now);
  return from === to ? from : `${from} to ${to}`;
}
