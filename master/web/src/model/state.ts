// States of hosts and services: their words, which of them are problems, and which is worse. The order is the one of the API's
// `-severity`, so that a list sorted here and one sorted there agree.
import { type Fields, Unreadable, text } from './reading';

export const HOST_STATES = ['DOWN', 'UP', 'PENDING'] as const;
export const SERVICE_STATES = ['CRITICAL', 'UNKNOWN', 'WARNING', 'OK', 'PENDING'] as const;
export type State = (typeof HOST_STATES)[number] | (typeof SERVICE_STATES)[number];
export type StateType = 'SOFT' | 'HARD';

const RANK: Readonly<Record<State, number>> = {
  OK: 0,
  UP: 0,
  PENDING: 1,
  WARNING: 2,
  UNKNOWN: 3,
  CRITICAL: 4,
  DOWN: 5,
};

export function isProblem(state: State): boolean {
  return RANK[state] > RANK.PENDING;
}

/** Greater is worse; a soft problem stands behind the same one hard. */
export function severity(state: State, type: StateType): number {
  return 2 * RANK[state] + (type === 'HARD' ? 1 : 0);
}

export function readState(of: Fields, name: string): State {
  const value = text(of, name);
  if (!Object.hasOwn(RANK, value)) throw new Unreadable(`the master names a state “${value}” that this page does not know; reload it`);
  return value as State;
}

export function readStateType(of: Fields, name: string): StateType {
  return text(of, name) === 'SOFT' ? 'SOFT' : 'HARD';
}
