import { describe, expect, test } from 'vitest';
import { EMPTY, FEED_MAX, type Board, fold, withNews, withProblems, withStatus, TAIL_MAX } from './board';
import { readItem } from './item';
import { type News, readEvent, readPast, type StreamEvent } from './news';
import { object, slot, status } from './sample';
import { readSlot } from './slot';
import { readStatus } from './status';

function event(kind: string, data: unknown): StreamEvent {
  const read = readEvent(kind, JSON.stringify(data));
  if (read === null) throw new Error(`${kind} is not known`);
  return read;
}

function change(index: number, service: string, to: string, from: string, more: Readonly<Record<string, unknown>> = {}): StreamEvent {
  const changed = object('web01', service, { state: to, version: index, ...more });
  return event('change', {
    index,
    at: '2026-11-21T10:00:05.000Z',
    changes: [{ ...changed, from: { state: from, state_type: 'HARD' }, hard: true }],
  });
}

function problem(service: string, state: string, version: number) {
  return readItem(object('web01', service, { state, version }));
}

const states = (board: Board) => [...board.problems.values()].map((item) => `${item.service} ${item.state}`);
const read = (board: Board) => [board.status?.services.OK, board.status?.services.CRITICAL, board.status?.problems];
const loaded = withStatus(withProblems(EMPTY, [problem('disk', 'WARNING', 90)], 100, 1), readStatus(status({ problems: 1, services: { OK: 19, WARNING: 1 } })));

describe('changes', () => {
  test('a new problem enters, a changed one is replaced, a recovered one leaves', () => {
    const first = fold(loaded, [change(101, 'http', 'CRITICAL', 'OK')]);
    expect(states(first.board)).toEqual(['disk WARNING', 'http CRITICAL']);
    const second = fold(first.board, [change(102, 'disk', 'CRITICAL', 'WARNING'), change(103, 'http', 'OK', 'CRITICAL')]);
    expect(states(second.board)).toEqual(['disk CRITICAL']);
    expect([...second.stale]).toEqual([]);
  });

  test('counts follow the changes', () => {
    const { board } = fold(loaded, [change(101, 'http', 'CRITICAL', 'OK')]);
    expect(read(board)).toEqual([18, 1, 2]);
    expect(read(fold(board, [change(102, 'http', 'OK', 'CRITICAL')]).board)).toEqual([19, 0, 1]);
  });

  test('a list that was asked for before a change and comes after it does not undo it', () => {
    const { board } = fold(loaded, [change(105, 'http', 'CRITICAL', 'OK'), change(106, 'disk', 'OK', 'WARNING')]);
    const late = withProblems(board, [problem('disk', 'WARNING', 90)], 104, 1);
    expect(states(late)).toEqual(['http CRITICAL']);
    const counted = withStatus(late, readStatus(status({ index: 105, problems: 2, services: { OK: 18, CRITICAL: 1, WARNING: 1 } })));
    expect(read(counted)).toEqual([19, 1, 1]);
  });

  test('a list that is newer than the changes has the last word', () => {
    const { board } = fold(loaded, [change(105, 'http', 'CRITICAL', 'OK')]);
    const newer = withStatus(withProblems(board, [], 110, 0), readStatus(status({ index: 110 })));
    expect(states(newer)).toEqual([]);
    expect(newer.tail).toEqual([]);
  });

  test('a later page of a list knows more than a change before it', () => {
    const { board } = fold(loaded, [change(105, 'http', 'OK', 'CRITICAL')]);
    expect(states(withProblems(board, [problem('http', 'CRITICAL', 108)], 100, 1))).toEqual(['http CRITICAL']);
  });

  test('a row told again after a broken connection counts once', () => {
    const once = fold(loaded, [change(101, 'http', 'CRITICAL', 'OK')]).board;
    expect(fold(once, [change(101, 'http', 'CRITICAL', 'OK')]).board).toEqual(once);
  });

  test('too many changes for the tail ask for the lists again', () => {
    const many = Array.from({ length: TAIL_MAX + 1 }, (_, at) => change(101 + at, `s${at}`, 'CRITICAL', 'OK'));
    const { board, stale } = fold(loaded, many);
    expect(board.tail.length).toBe(TAIL_MAX);
    expect(stale).toContain('problems');
    expect(stale).toContain('status');
    expect(board.problems.size).toBe(TAIL_MAX + 2);
  });
});

describe('events that are more than their words', () => {
  test('a resync asks for everything, and indexes may begin lower', () => {
    const { board } = fold(loaded, [change(101, 'http', 'CRITICAL', 'OK')]);
    const after = fold(board, [event('resync', { index: 3, reason: 'the journal is another one' })]);
    expect([...after.stale].sort()).toEqual(['commands', 'gaps', 'past', 'problems', 'slots', 'status']);
    expect(after.board.feed).toEqual([]);
    const anew = withStatus(withProblems(after.board, [], 3, 0), readStatus(status({ index: 3 })));
    expect(states(fold(anew, [change(4, 'http', 'CRITICAL', 'OK')]).board)).toEqual(['http CRITICAL']);
  });

  test('an activation asks for everything and is told', () => {
    const { board, stale } = fold(loaded, [
      event('activation', { index: 120, at: '2026-11-21T10:01:00.000Z', generation: 4, digest: 'ab', author: 'apply', added: 1, removed: [] }),
    ]);
    expect(stale).toContain('problems');
    expect(board.feed.map((line) => 'title' in line && line.title)).toEqual(['generation 4']);
  });

  test('a link that breaks shows at once and asks for what hangs on it', () => {
    const board = { ...loaded, slots: [readSlot(slot('eu', 1)), readSlot(slot('eu', 2))] };
    const after = fold(board, [event('link', { region: 'eu', slot: 2, connected: false, stale: false })]);
    expect(after.board.slots.map((known) => known.connected)).toEqual([true, false]);
    expect(after.stale).toContain('slots');
  });

  test('kinds of a newer master are passed over', () => {
    expect(readEvent('results', '{}')).toBeNull();
    expect(readPast({ kind: 'grant', time: '2026-11-21T10:00:00Z' })).toBeNull();
  });

  test('what is no change is an error with a name', () => {
    expect(() => readEvent('change', '{"index":1,"at":"2026-11-21T10:00:00Z","changes":[{"host":1}]}')).toThrow(/“host”/u);
    expect(() => event('change', { index: 1, at: 'noon', changes: [] })).toThrow(/“at”/u);
  });
});

describe('the feed', () => {
  const told = (event: StreamEvent) => ('news' in event ? event.news : []);

  test('history and stream tell one happening once', () => {
    const streamed = told(change(101, 'http', 'CRITICAL', 'OK', { output: 'refused', attempt: 3 }));
    const past = readPast({
      id: 'x',
      index: 101,
      kind: 'transition',
      time: '2026-11-21T10:00:04.000Z',
      recorded: '2026-11-21T10:00:05.000Z',
      host: 'web01',
      service: 'http',
      region: 'eu',
      slot: 1,
      from_state: 'OK',
      from_state_type: 'HARD',
      state: 'CRITICAL',
      state_type: 'HARD',
      attempt: 3,
      max_attempts: 3,
      hard: true,
      late: false,
      output: 'refused',
    });
    expect(withNews(streamed, past === null ? [] : [past])).toEqual(streamed);
  });

  test('first results that are good are no news; problems are', () => {
    expect(told(change(101, 'http', 'OK', 'PENDING'))).toEqual([]);
    expect(told(change(101, 'http', 'WARNING', 'PENDING')).length).toBe(1);
  });

  test('two changes of one object in one row are two lines', () => {
    const one = (state: string, from: string, attempt: number) => ({ ...object('web01', 'http', { state, attempt, version: 101 }), from: { state: from }, hard: false });
    const row = event('change', { index: 101, at: '2026-11-21T10:00:05.000Z', changes: [one('WARNING', 'OK', 1), one('CRITICAL', 'WARNING', 2)] });
    const { board } = fold(loaded, [row]);
    expect(board.feed.length).toBe(2);
    expect(states(board)).toEqual(['disk WARNING', 'http CRITICAL']);
    expect(read(board)).toEqual([18, 1, 2]);
  });

  test('claims, presence and gaps read alike from stream and history', () => {
    const at = '2026-11-21T10:00:00.000Z';
    const claim = { index: 7, region: 'eu', slot: 2, instance: 'ab', remote: '10.0.0.1:4', software: '0.1.0' };
    const streamed = told(event('slot', { ...claim, at, what: 'claim' }));
    expect(readPast({ ...claim, kind: 'claim', time: at })).toEqual(streamed[0]);
    const presence = { index: 8, region: 'eu', slot: 2, present: false, reason: 'silent' };
    expect(readPast({ ...presence, kind: 'presence', time: at })).toEqual(told(event('slot', { ...presence, at, what: 'presence' }))[0]);
    const lost = { index: 10, incident: 'slot-lost', region: 'eu', slot: 2, open: true, reason: 'silent', slots: 1, checks: 12, moved: 5, author: null, opened: null };
    const cut = { ...lost, incident: 'cut-off', region: null, slot: null, slots: 3, open: false, reason: 'resumed', author: 'ann' };
    const moves = { index: 11, held: true, author: 'ann' };
    const clock = { index: 12, region: null, slot: null, by_ms: -3_600_000, noticed: at };
    const fleet: [string, Record<string, unknown>, string, string][] = [
      ['incident', lost, 'slot eu/2', 'lost with 12 checks, 5 went to other slots'],
      ['incident', cut, 'master', 'no longer cut off, as ann said'],
      ['moves', moves, 'moves', 'held back, as ann said'],
      ['clock', clock, 'master', 'clock set by −3600 s'],
    ];
    for (const [kind, data, title, line] of fleet) {
      const [news] = told(event(kind, { ...data, at }));
      expect(news).toMatchObject({ title, line });
      expect(readPast({ ...data, kind, time: at })).toEqual(news);
    }
    const gap = { run: 'r', first: 5, last: 9, reason: 'spool-full', explained: true, region: 'eu', slot: 2 };
    const news = told(event('gap', { index: 9, at, gaps: [gap] }))[0];
    expect(readPast({ ...gap, index: 9, kind: 'gap', time: at })).toEqual(news);
    expect(news && 'line' in news && news.line).toBe('5 results lost: spool-full');
    const open = told(event('gap', { index: 9, at, gaps: [{ ...gap, last: 5, reason: 'stranded', open_ended: true }] }))[0];
    expect(open && 'line' in open && open.line).toBe('at least 1 result lost: stranded');
  });

  test('is bounded and newest first', () => {
    const lines = Array.from({ length: FEED_MAX + 50 }, (_, at): News => ({ kind: 'slot', key: `${at}`, index: at, at, title: 't', line: 'l', bad: false }));
    const feed = withNews([], lines);
    expect(feed.length).toBe(FEED_MAX);
    expect(feed[0]?.at).toBe(FEED_MAX + 49);
  });
});
