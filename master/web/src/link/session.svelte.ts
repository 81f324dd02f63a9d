// The page's life: reads everything, follows the stream, comes back when it breaks, and asks again for what no event tells (outputs,
// heartbeats of satellites). Holds the board that views show. What the board becomes is decided in `model/board`.
import { EMPTY, type Board, type Part, fold, withNews, withProblems, withStatus } from '../model/board';
import { type Command, readCommand } from '../model/command';
import { readEvent, PAST_KINDS, readPast, type Change, type StreamEvent } from '../model/news';
import { Unreadable } from '../model/reading';
import { type Gap, readGap } from '../model/gap';
import { readSlot } from '../model/slot';
import { readStatus } from '../model/status';
import { Client, Locked, Refused, storeToken } from './client';
import { items, page } from './lists';
import { follow } from './stream';

/** Problems taken from the master at most: the worst. The page says how many there are besides. */
export const PROBLEMS_MAX = 5000;
/** Slots shown at most. */
const SLOTS_MAX = 1000;
/** Gaps shown, and commands that wait. */
const [GAPS_SHOWN, COMMANDS_SHOWN] = [5, 5];
/** Lines of the feed taken from history at start. */
const PAST_SHOWN = 60;
/** How often figures are asked for that change without an event. */
const EVERY_MS: Readonly<Record<Part, number>> = { status: 5_000, slots: 5_000, problems: 5_000, gaps: 60_000, commands: 5_000, past: Infinity };
/** A longer list of problems is read four times less often: what changes state comes as an event anyway. */
const PROBLEMS_FEW = 200;
/** Parts that events made stale are read together, at most this often. */
const GATHER_MS = 400;
/** Events are shown together, at most this often. */
const SHOW_MS = 60;
/** Waits between tries: doubled from the first to the last, with a part of chance so that pages do not come back all at once. */
const [RETRY_FIRST_MS, RETRY_LAST_MS] = [1_000, 15_000];

/** `opening`: nothing is known yet. `locked`: a token is wanted. */
export type Phase = 'opening' | 'open' | 'locked';
/** `live`: events come as they happen. */
export type Link = 'connecting' | 'live' | 'lost';

export class Session {
  board = $state.raw<Board>(EMPTY);
  gaps = $state.raw<readonly Gap[]>([]);
  gapsTotal = $state(0);
  commands = $state.raw<readonly Command[]>([]);
  commandsTotal = $state(0);
  phase = $state<Phase>('opening');
  link = $state<Link>('connecting');
  /** Why the last try failed. */
  failure = $state<string | null>(null);
  /** When the master last said anything, by this machine's clock. */
  heardAt = $state<number | null>(null);
  /** When the next try is due, by this machine's clock. */
  retryAt = $state<number | null>(null);
  /** What the master's clock shows beyond this machine's, in milliseconds. */
  offset = $state(0);
  /** This machine's clock, once a second. */
  tick = $state(Date.now());

  readonly client = new Client();
  #ends: AbortController | null = null;
  #lastId = '0';
  #tries = 0;
  #waiting: StreamEvent[] = [];
  #showing: ReturnType<typeof setTimeout> | null = null;
  #stale = new Set<Part>();
  #gathering: ReturnType<typeof setTimeout> | null = null;
  #asking = new Set<Part>();
  #wake: (() => void) | null = null;
  #readAt: Record<Part, number> = { status: 0, slots: 0, problems: 0, gaps: 0, commands: 0, past: 0 };
  #onChanges = new Set<(changes: readonly Change[]) => void>();

  /** Now, by the master's clock. */
  get now(): number {
    return this.tick + this.offset;
  }

  /** Begins; gives what ends it. */
  start(): () => void {
    const ends = new AbortController();
    this.#ends = ends;
    const ticking = setInterval(() => this.#second(), 1000);
    const seen = () => {
      if (document.visibilityState === 'visible') this.#second();
    };
    document.addEventListener('visibilitychange', seen);
    const awake = () => this.retry();
    addEventListener('online', awake);
    void this.#live(ends.signal);
    return () => {
      ends.abort();
      clearInterval(ticking);
      document.removeEventListener('visibilitychange', seen);
      removeEventListener('online', awake);
    };
  }

  /** Tries at once what would be tried later. */
  retry(): void {
    this.#wake?.();
  }

  unlock(token: string): void {
    this.client.token = token;
    storeToken(token);
    this.failure = null;
    this.phase = 'opening';
    this.retry();
  }

  forget(): void {
    this.client.token = null;
    storeToken(null);
    this.#ends?.abort();
    location.reload();
  }

  /** Tells changes as they come, for lists that live outside the board. Gives what ends it. */
  onChanges(listener: (changes: readonly Change[]) => void): () => void {
    this.#onChanges.add(listener);
    return () => this.#onChanges.delete(listener);
  }

  async #live(ends: AbortSignal): Promise<void> {
    while (!ends.aborted) {
      try {
        if (this.phase !== 'open') await this.#begin();
        await follow(this.client, this.#lastId, ends, {
          heard: () => this.#heard(),
          frames: (frames, lastId) => {
            if (lastId !== '') this.#lastId = lastId;
            for (const frame of frames) {
              const event = readEvent(frame.event, frame.data);
              if (event) this.#waiting.push(event);
            }
            this.#showing ??= setTimeout(() => this.#show(), SHOW_MS);
          },
        });
        this.failure = 'the master ended the stream';
      } catch (error) {
        if (ends.aborted) return;
        this.failure = error instanceof Error ? error.message : String(error);
        if (error instanceof Locked) this.phase = 'locked';
        // An event that cannot be read is passed over; what it told is read from the lists.
        else if (error instanceof Unreadable && this.phase === 'open') this.#refreshAll();
      }
      this.link = 'lost';
      await this.#pause(ends);
      this.link = 'connecting';
    }
  }

  async #begin(): Promise<void> {
    await Promise.all([this.#read('status'), this.#read('problems'), this.#read('slots'), this.#read('gaps'), this.#read('commands')]);
    // The lists may be of different moments; the stream begins at the oldest, and later lists know what they hold already.
    this.#lastId = String(Math.min(this.board.status?.index ?? 0, this.board.problemsIndex));
    this.phase = 'open';
    try {
      await this.#read('past');
    } catch (error) {
      // History may be catching up after a start; the feed then begins with what the stream tells.
      if (!(error instanceof Refused)) throw error;
    }
  }

  #heard(): void {
    this.heardAt = Date.now();
    if (this.link !== 'live') this.#refreshAll();
    this.link = 'live';
    this.failure = null;
    this.#tries = 0;
  }

  /** Waits before the next try; locked, until there is a token. */
  async #pause(ends: AbortSignal): Promise<void> {
    const wait = Math.min(RETRY_FIRST_MS * 2 ** this.#tries, RETRY_LAST_MS) * (0.75 + Math.random() / 2);
    this.#tries += 1;
    this.retryAt = this.phase === 'locked' ? null : Date.now() + wait;
    await new Promise<void>((resolve) => {
      const timer = this.phase === 'locked' ? undefined : setTimeout(resolve, wait);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      ends.addEventListener('abort', () => this.#wake?.(), { once: true });
    });
    this.#wake = null;
    this.retryAt = null;
  }

  #show(): void {
    this.#showing = null;
    const events = this.#waiting;
    this.#waiting = [];
    if (events.length === 0) return;
    const { board, stale } = fold(this.board, events);
    this.board = board;
    for (const part of stale) this.#stale.add(part);
    if (this.#stale.size > 0) this.#gathering ??= setTimeout(() => this.#gather(), GATHER_MS);
    const changes = events.flatMap((event) => (event.kind === 'change' ? event.changes : []));
    if (changes.length > 0) for (const listener of this.#onChanges) listener(changes);
  }

  #gather(): void {
    this.#gathering = null;
    const parts = [...this.#stale];
    this.#stale.clear();
    for (const part of parts) this.#refresh(part);
  }

  #second(): void {
    this.tick = Date.now();
    if (this.phase !== 'open' || document.visibilityState === 'hidden') return;
    for (const part of Object.keys(EVERY_MS) as Part[]) {
      const every = part === 'problems' && this.board.problems.size > PROBLEMS_FEW ? 4 * EVERY_MS[part] : EVERY_MS[part];
      if (this.tick - this.#readAt[part] >= every && !this.#asking.has(part)) this.#refresh(part);
    }
  }

  #refresh(part: Part): void {
    if (this.#asking.has(part)) {
      // What is on its way was asked for before this; it is asked for again when it has come.
      this.#stale.add(part);
      return;
    }
    this.#asking.add(part);
    this.#read(part)
      .catch((error: unknown) => {
        if (error instanceof Locked) this.phase = 'locked';
        this.failure = error instanceof Error ? error.message : String(error);
      })
      .finally(() => {
        this.#asking.delete(part);
        if (this.#stale.has(part)) this.#gathering ??= setTimeout(() => this.#gather(), GATHER_MS);
      });
  }

  /** Everything that was not read just now. */
  #refreshAll(): void {
    for (const part of Object.keys(EVERY_MS) as Part[]) {
      if (Date.now() - this.#readAt[part] > RETRY_FIRST_MS) this.#refresh(part);
    }
  }

  async #read(part: Part): Promise<void> {
    this.#readAt[part] = Date.now();
    switch (part) {
      case 'status': {
        const asked = Date.now();
        const status = readStatus(await this.client.ask('/status'));
        this.offset = status.now - (asked + Date.now()) / 2;
        this.board = withStatus(this.board, status);
        break;
      }
      case 'problems': {
        const found = await items(this.client, '/problems', PROBLEMS_MAX, '');
        this.board = withProblems(this.board, found.items, found.index, found.total);
        break;
      }
      case 'slots': {
        const found = await page(this.client, '/slots', readSlot, { limit: SLOTS_MAX });
        this.board = { ...this.board, slots: found.items };
        break;
      }
      case 'gaps': {
        const found = await page(this.client, '/gaps', readGap, { limit: GAPS_SHOWN });
        this.gaps = found.items;
        this.gapsTotal = found.total;
        break;
      }
      case 'commands': {
        const found = await page(this.client, '/commands', readCommand, { limit: COMMANDS_SHOWN });
        this.commands = found.items;
        this.commandsTotal = found.total;
        break;
      }
      case 'past': {
        const found = await page(this.client, '/events', readPast, { kind: PAST_KINDS.join(','), limit: PAST_SHOWN });
        this.board = { ...this.board, feed: withNews(this.board.feed, found.items.filter((line) => line !== null)) };
        break;
      }
    }
    this.heardAt = Date.now();
  }
}
