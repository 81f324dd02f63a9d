// How times, numbers, slots and calm are put into words, and in which order problems stand.
import { describe, expect, test } from 'vitest';
import { age, clockTime, moment, span } from './age';
import { lostOf, madeAt, readGap } from './gap';
import { readItem, worstFirst } from './item';
import { bytes, counted, measured, offset } from './quantity';
import { asked, readCommand, waitsFor } from './command';
import { object, slot, status } from './sample';
import { condition, readSlot, regions, remarks } from './slot';
import { calm, readStatus } from './status';

const [second, minute, hour, day] = [1000, 60_000, 3_600_000, 86_400_000];

test.each([
  [0, '0 s'],
  [-5 * second, '0 s'],
  [59_999, '59 s'],
  [minute, '1 min'],
  [59 * minute + 59 * second, '59 min'],
  [hour, '1 h'],
  [2 * hour + 5 * minute, '2 h 5 min'],
  [day, '1 d'],
  [5 * day + 3 * hour, '5 d 3 h'],
  [10 * day + 3 * hour, '10 d'],
])('a span of %i ms is %s', (ms, text) => {
  expect(span(ms)).toBe(text);
});

test('no time has no age', () => {
  expect(age(null, 5)).toBe('–');
});

test('a time of another day is a date', () => {
  const at = Date.UTC(2026, 10, 20, 12);
  expect(moment(at, at + hour)).toBe(clockTime(at));
  expect(moment(at, at + 2 * day)).toBe('20 Nov');
});

test('numbers are short and keep their unit', () => {
  expect([bytes(0), bytes(1023), bytes(1536), bytes(300 * 1024 ** 2)]).toEqual(['0 B', '1023 B', '1.5 KiB', '300 MiB']);
  expect([offset(0), offset(3), offset(-250), offset(-90_000)]).toEqual(['±0 ms', '+3 ms', '−250 ms', '−90 s']);
  expect([measured(0.123456789, 's'), measured(82, '%'), measured(5, '')]).toEqual(['0.123457 s', '82 %', '5']);
  expect([counted(1, 'host'), counted(1200, 'host'), counted(2, 'process', 'processes')]).toEqual(['1 host', '1,200 hosts', '2 processes']);
});

test('the worst stands first, hard before soft, the newest of equals first, then by name', () => {
  const at = (minutes: number) => new Date(Date.UTC(2026, 10, 21, 10, minutes)).toISOString();
  const made = [
    object('a', 'warning old', { state: 'WARNING', last_change: at(1) }),
    object('a', 'warning new', { state: 'WARNING', last_change: at(9) }),
    object('a', 'critical soft', { state: 'CRITICAL', state_type: 'SOFT', last_change: at(9) }),
    object('a', 'critical hard', { state: 'CRITICAL', last_change: at(1) }),
    object('a', 'unknown', { state: 'UNKNOWN', last_change: at(1) }),
    object('z', null, { state: 'DOWN', last_change: at(1) }),
    object('b', null, { state: 'DOWN', last_change: at(1) }),
  ].map(readItem);
  const order = made.sort(worstFirst).map((item) => item.service ?? item.host);
  expect(order).toEqual(['b', 'z', 'critical hard', 'critical soft', 'unknown', 'warning new', 'warning old']);
});

describe('slots', () => {
  test('a slot is connected, silent, missing, or no longer expected', () => {
    const how = (more: Record<string, unknown>) => condition(readSlot(slot('eu', 1, more)));
    expect(how({})).toBe('connected');
    expect(how({ stale: true })).toBe('silent');
    expect(how({ connected: false })).toBe('missing');
    expect(how({ connected: false, expected: false })).toBe('gone');
    expect(how({ connected: false, stale: true, lost: '2026-11-21T09:59:00.000Z' })).toBe('lost');
    expect(how({ drained: 'ann' })).toBe('drained');
    expect(how({ drained: 'ann', connected: false, stale: true })).toBe('drained');
  });

  test('a healthy slot has no remark; what needs eyes has one each', () => {
    const now = Date.UTC(2026, 10, 21, 10);
    expect(remarks(readSlot(slot('eu', 1)), 1, now)).toEqual([]);
    const ill = slot('eu', 1, { undelivered: 50, lag_seconds: 90, spool_bytes: 2048, clock_offset_ms: -4000, clock: 'WARNING', applied_generation: 3, refused: 2, others: 1, memory_only: true, late: 1 });
    expect(remarks(readSlot(ill), 4, now)).toEqual([
      'its spool cannot be written: results are in memory only',
      '1 further process connected for this slot',
      'delivery lags 1 min, 2.0 KiB in its spool',
      'its clock is off by −4000 ms; times of its results are corrected',
      'still runs generation 3',
      '2 results refused',
      '1 check began late',
    ]);
    const full = slot('eu', 1, { spool_full: true, given_up: 1200 });
    expect(remarks(readSlot(full), 1, now)).toEqual(['its spool is full: the oldest results go', '1,200 results given up: gaps name them']);
    expect(remarks(readSlot(slot('eu', 2, { connected: false, since: null })), 1, now)).toEqual(['has never connected']);
    expect(remarks(readSlot(slot('eu', 2, { connected: false })), 1, now)).toEqual(['nothing is heard of its 10 checks']);
    const stepped = { clock_slew_ms: 3_600_000, clock_step: { at: '2026-11-21T09:55:00.000Z', by_ms: -3_600_000, index: 9 } };
    expect(remarks(readSlot(slot('eu', 2, stepped)), 1, now)).toEqual([
      "its checks are on their way to the master's time, +3600 s to go",
      'its clock was set by −3600 s, 5 min ago',
    ]);
    const alone = { drained: 'ann', connected: false, checks: 1 };
    expect(remarks(readSlot(slot('eu', 2, alone)), 1, now)).toEqual([
      'drained by ann, and goes on with 1 check that no other slot can take over; not connected',
    ]);
  });

  test('regions that miss a slot stand first', () => {
    const slots = [slot('a', 2), slot('a', 1), slot('b', 1, { connected: false }), slot('b', 7, { connected: false, expected: false })].map(readSlot);
    expect(regions(slots).map((region) => [region.name, region.connected, region.expected, region.slots.map((of) => of.slot)])).toEqual([
      ['b', 0, 1, [1, 7]],
      ['a', 2, 2, [1, 2]],
    ]);
  });

  test('a drained slot that is connected counts as connected, one that is away is not missed', () => {
    const counts = (more: Record<string, unknown>) => {
      const [region] = regions([slot('eu', 1), slot('eu', 2, { drained: 'ann', ...more })].map(readSlot));
      return [region?.connected, region?.expected, region?.missing];
    };
    expect(counts({})).toEqual([2, 2, 0]);
    expect(counts({ connected: false })).toEqual([1, 2, 0]);
    expect(counts({ connected: false, drained: null })).toEqual([1, 2, 1]);
    expect(counts({ stale: true, drained: null })).toEqual([1, 2, 1]);
  });

  test('a command that waits says what was asked and for whom it waits', () => {
    const given = { index: 7, at: '2026-11-21T10:00:00.000Z', author: 'ann', host: 'web01', service: 'load', what: 'check-now' };
    const said = (more: Record<string, unknown>) => {
      const command = readCommand({ ...given, state: null, output: null, region: 'eu', slot: 1, told: false, reason: 'silent', ...more });
      return `${asked(command)}: ${waitsFor(command)}`;
    };
    expect(said({})).toBe('check now: waits for eu/1, which is silent');
    expect(said({ told: true, reason: null, what: 'reset' })).toBe('reset: told to eu/1');
    expect(said({ reason: 'old-version', what: 'passive-result', state: 'WARNING', output: 'x' })).toBe('result WARNING: eu/1 is too old for commands');
    expect(said({ region: null, slot: null, reason: 'no-owner' })).toBe('check now: waits for a slot that will own the check');
    expect(said({ what: 'dance' })).toContain('dance: ');
  });
});

test('a gap says whose it is, how many at least, when, and what its reason means', () => {
  const given = { index: 7, at: '2026-11-21T10:00:00.000Z', region: 'eu', slot: 1, first: 5, last: 9, lost: 5, open_ended: false, reason: 'spool-full', explained: true };
  const now = Date.UTC(2026, 11, 24);
  const said = (more: Record<string, unknown>) => {
    const gap = readGap({ ...given, meaning: 'no room', ...more });
    return [gap.whose, lostOf(gap), madeAt(gap, now), gap.meaning];
  };
  const [from, to] = ['2026-11-20T12:00:00.000Z', '2026-11-22T12:00:00.000Z'];
  expect(said({ from, to })).toEqual(['eu/1', '5 results', '20 Nov to 22 Nov', 'no room']);
  expect(said({ lost: 1, open_ended: true, from, to: null, meaning: null })).toEqual(['eu/1', 'at least 1 result', 'since 20 Nov', null]);
  expect(said({ region: null, slot: null, writer: 'graphite', lost: null })).toEqual(['graphite', 'rows not sent', '', 'no room']);
});

describe('calm', () => {
  const said = (hosts: Record<string, number>, services: Record<string, number>, more: Record<string, unknown> = {}) =>
    calm(readStatus(status({ hosts, services, ...more })));

  test('says all only when all was checked', () => {
    expect(said({ UP: 6 }, { OK: 20 })).toEqual({ title: 'All 20 services OK', line: 'on 6 hosts, every one UP.', whole: true });
    expect(said({ UP: 1 }, { OK: 1 }).title).toBe('All 1 service OK');
    expect(said({ UP: 6 }, {}).title).toBe('All 6 hosts UP');
    expect(said({ UP: 6 }, { OK: 19, PENDING: 1 })).toMatchObject({ title: 'No problem so far', line: '1 check of 26 has not run yet.', whole: false });
    expect(said({ PENDING: 2 }, { PENDING: 3 })).toMatchObject({ title: 'Waiting for first results', whole: false });
    const missing = { slots: { expected: 4, connected: 3, missing: 1, seen: 4 } };
    expect(said({ UP: 6 }, { OK: 20 }, missing)).toMatchObject({ title: 'No known problem', whole: false });
    expect(said({ UP: 6 }, { OK: 20 }, { stale: 3 })).toMatchObject({ title: 'No known problem', whole: false });
    expect(said({}, {})).toMatchObject({ title: 'Nothing is configured yet', whole: false });
  });
});

test('a state that this page does not know is an error, not a guess', () => {
  expect(() => readItem(object('a', 'b', { state: 'PURPLE' }))).toThrow(/PURPLE/u);
  expect(() => readItem(object('a', 'b', { state: 'constructor' }))).toThrow(/constructor/u);
});
