// What the page knows, folded from lists (true at one journal index) and from changes (each at its own index). Pure. The surprise:
// changes are kept until every list is newer, because a list that was asked for earlier may arrive later and must not undo them.
import type { Item } from './item';
import type { Change, News, StreamEvent } from './news';
import type { Slot } from './slot';
import { isProblem, type State } from './state';
import type { Counts, Status } from './status';

/** Lines of the feed; older ones are in history. */
export const FEED_MAX = 200;
/** Changes kept for lists on their way. Beyond it the oldest go, and status and problems are read anew. */
export const TAIL_MAX = 5000;

export interface Board {
  readonly status: Status | null;
  readonly problems: ReadonlyMap<string, Item>;
  /** Index that the list of problems was true for. */
  readonly problemsIndex: number;
  /** Problems on the master when that list was read; more than were taken if there were too many. */
  readonly problemsTotal: number;
  readonly slots: readonly Slot[];
  readonly feed: readonly News[];
  readonly tail: readonly Change[];
  /** Index of the newest change folded: a row that is told again after a broken connection counts once. */
  readonly changedIndex: number;
}

/** What must be read anew. */
export type Part = 'status' | 'problems' | 'slots' | 'gaps' | 'commands' | 'past';

export const EMPTY: Board = {
  status: null,
  problems: new Map(),
  problemsIndex: 0,
  problemsTotal: 0,
  slots: [],
  feed: [],
  tail: [],
  changedIndex: 0,
};

function changeProblems(problems: Map<string, Item>, changes: readonly Change[]): void {
  for (const { index, item } of changes) {
    const known = problems.get(item.key);
    if (known && known.version > index) continue;
    if (isProblem(item.state)) problems.set(item.key, item);
    else problems.delete(item.key);
  }
}

function changeStatus(status: Status, changes: readonly Change[]): Status {
  if (changes.length === 0) return status;
  const hosts: Partial<Record<State, number>> = { ...status.hosts };
  const services: Partial<Record<State, number>> = { ...status.services };
  let problems = status.problems;
  for (const { item, from } of changes) {
    const counts = item.service === null ? hosts : services;
    counts[from] = Math.max(0, (counts[from] ?? 0) - 1);
    counts[item.state] = (counts[item.state] ?? 0) + 1;
    problems += Number(isProblem(item.state)) - Number(isProblem(from));
  }
  return { ...status, hosts: hosts as Counts, services: services as Counts, problems: Math.max(0, problems) };
}

const after = (changes: readonly Change[], index: number) => changes.filter((change) => change.index > index);

function trimmed(board: Board): Board {
  const oldest = Math.min(board.status?.index ?? 0, board.problemsIndex);
  return { ...board, tail: after(board.tail, oldest) };
}

export function withStatus(board: Board, status: Status): Board {
  return trimmed({ ...board, status: changeStatus(status, after(board.tail, status.index)) });
}

/** `index` is the one of the list's first page: what came later is in the tail, or is told again by versions. */
export function withProblems(board: Board, items: readonly Item[], index: number, total: number): Board {
  const problems = new Map(items.map((item) => [item.key, item]));
  changeProblems(problems, after(board.tail, index));
  return trimmed({ ...board, problems, problemsIndex: index, problemsTotal: total });
}

/** Newest first, each happening once. */
export function withNews(feed: readonly News[], news: readonly News[]): readonly News[] {
  const known = new Set(feed.map((line) => line.key));
  const fresh = news.filter((line) => !known.has(line.key));
  if (fresh.length === 0) return feed;
  return [...fresh, ...feed].sort((a, b) => b.at - a.at || b.index - a.index).slice(0, FEED_MAX);
}

/** Folds events of the stream, in their order, and says what they make worth reading anew. */
export function fold(board: Board, events: readonly StreamEvent[]): { board: Board; stale: Set<Part> } {
  const stale = new Set<Part>();
  const fresh = events.slice(events.findLastIndex((event) => event.kind === 'resync') + 1);
  // After a resync the journal may be another one, whose indexes begin lower; the lists are read anew anyway.
  const begun = fresh.length < events.length ? { ...board, tail: [], changedIndex: 0, feed: [] } : board;
  const changes = fresh.flatMap((event) => (event.kind === 'change' ? after(event.changes, begun.changedIndex) : []));
  const news = fresh.flatMap((event) => ('news' in event ? event.news : []));
  let next = begun;
  if (changes.length > 0) {
    const problems = new Map(begun.problems);
    changeProblems(problems, after(changes, begun.problemsIndex));
    const status = begun.status && changeStatus(begun.status, after(changes, begun.status.index));
    const tail = [...begun.tail, ...changes];
    if (tail.length > TAIL_MAX) stale.add('status').add('problems');
    const changedIndex = changes.reduce((newest, change) => Math.max(newest, change.index), begun.changedIndex);
    next = { ...next, problems, status, tail: tail.slice(-TAIL_MAX), changedIndex };
  }
  if (news.length > 0) next = { ...next, feed: withNews(next.feed, news) };
  for (const event of events) {
    if (event.kind === 'link') {
      const { region, slot, connected, stale: silent } = event;
      const slots = next.slots.map((known) => (known.region === region && known.slot === slot ? { ...known, connected, stale: silent } : known));
      next = { ...next, slots };
    }
    if (event.kind === 'slot' || event.kind === 'link') stale.add('slots').add('status').add('problems');
    if (event.kind === 'gap') stale.add('gaps').add('status');
    if (event.kind === 'command' || event.kind === 'slot') stale.add('commands');
    if (event.kind === 'resync') stale.add('past');
    if (event.kind === 'activation' || event.kind === 'resync') stale.add('status').add('problems').add('slots').add('gaps').add('commands');
  }
  return { board: next, stale };
}
