// Commands to the owners of checks that have no answer yet, as the API lists them, and their words.
import { keyOf } from './item';
import { fields, flag, maybe, number, text, time } from './reading';
import { maybeSlot } from './slot';

export interface Command {
  readonly index: number;
  readonly at: number;
  readonly author: string;
  readonly object: string;
  readonly what: string;
  /** Of a result from outside: its state and its text, cut by the master. */
  readonly state: string | null;
  readonly output: string | null;
  /** `region/slot` of who owns the check; `null`: nobody yet. */
  readonly owner: string | null;
  readonly told: boolean;
  /** Why it was not told. */
  readonly reason: string | null;
}

export function readCommand(value: unknown): Command {
  const of = fields(value, 'commands');
  return {
    index: number(of, 'index'),
    at: time(of, 'at'),
    author: text(of, 'author'),
    object: keyOf(text(of, 'host'), maybe(of, 'service', text)),
    what: text(of, 'what'),
    state: maybe(of, 'state', text),
    output: maybe(of, 'output', text),
    owner: maybeSlot(of),
    told: flag(of, 'told'),
    reason: maybe(of, 'reason', text),
  };
}

const WORDS: Readonly<Record<string, string>> = { 'check-now': 'check now', reset: 'reset' };

/** What is asked; a kind that this page does not know by the master's own name. */
export function asked(command: Command): string {
  if (command.state !== null) return `result ${command.state}`;
  return Object.hasOwn(WORDS, command.what) ? (WORDS[command.what] ?? command.what) : command.what;
}

/** For whom it waits, and why if that one was not told. */
export function waitsFor(command: Command): string {
  if (command.owner === null) return 'waits for a slot that will own the check';
  if (command.told) return `told to ${command.owner}`;
  return command.reason === 'old-version' ? `${command.owner} is too old for commands` : `waits for ${command.owner}, which is silent`;
}
