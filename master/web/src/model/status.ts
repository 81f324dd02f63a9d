// The installation at one glance, and its counts in words.
import { counted } from './quantity';
import { type Fields, fields, flag, list, maybe, number, text, time } from './reading';
import { HOST_STATES, SERVICE_STATES, type State } from './state';

export type Counts = Readonly<Partial<Record<State, number>>>;

/** A problem of the fleet: one, whatever number of checks it makes stale. */
export interface Incident {
  readonly key: string;
  readonly kind: string;
  readonly text: string;
  readonly since: number;
}

function readIncident(value: unknown): Incident {
  const of = fields(value, 'incidents');
  return { key: String(number(of, 'index')), kind: text(of, 'kind'), text: text(of, 'text'), since: time(of, 'since') };
}

export interface Status {
  readonly version: string;
  readonly installation: string | null;
  readonly generation: number;
  /** Journal index that everything here is true for. */
  readonly index: number;
  /** The master's clock when it answered. */
  readonly now: number;
  readonly hosts: Counts;
  readonly services: Counts;
  readonly problems: number;
  /** Hosts and services that may be out of date. */
  readonly stale: number;
  readonly incidents: readonly Incident[];
  /** Who holds back the moves of hosts: an operator by name; `null`: nobody does, or the master itself does (see `incidents`). */
  readonly heldBy: string | null;
  readonly slotsExpected: number;
  readonly slotsMissing: number;
  readonly gaps: number;
  readonly heldOff: boolean;
  readonly readOnly: boolean;
  /** The configuration files differ from the running generation; `null`: not known. */
  readonly sourceDiffers: boolean | null;
}

function readCounts(of: Fields, name: string, states: readonly State[]): Counts {
  const given = fields(of[name], name);
  return Object.fromEntries(states.map((state) => [state, maybe(given, state, number) ?? 0]));
}

export function readStatus(value: unknown): Status {
  const of = fields(value, 'status');
  const slots = fields(of['slots'], 'slots');
  return {
    version: text(of, 'version'),
    installation: maybe(of, 'installation', text),
    generation: number(of, 'generation'),
    index: number(of, 'index'),
    now: time(of, 'now'),
    hosts: readCounts(of, 'hosts', HOST_STATES),
    services: readCounts(of, 'services', SERVICE_STATES),
    problems: number(of, 'problems'),
    stale: maybe(of, 'stale', number) ?? 0,
    incidents: (maybe(of, 'incidents', (from, name) => list(from[name], name)) ?? []).map(readIncident),
    heldBy: maybe(of, 'moves', (from, name) => maybe(fields(from[name], name), 'author', text)),
    slotsExpected: number(slots, 'expected'),
    slotsMissing: number(slots, 'missing'),
    gaps: number(of, 'gaps'),
    heldOff: flag(of, 'held_off'),
    readOnly: flag(of, 'read_only'),
    sourceDiffers: maybe(of, 'source_differs', flag),
  };
}

export function sum(counts: Counts): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

export interface Calm {
  readonly title: string;
  readonly line: string;
  /** Everything was checked; otherwise calm is only what is known so far. */
  readonly whole: boolean;
}

/** What to say when there is no problem: never more than is known. */
export function calm({ hosts, services, slotsMissing, slotsExpected, stale }: Status): Calm {
  const [ofHosts, ofServices] = [sum(hosts), sum(services)];
  if (ofHosts + ofServices === 0) {
    return {
      title: 'Nothing is configured yet',
      line: 'Write hosts and services into the configuration directory, then run “perigee-master apply”.',
      whole: false,
    };
  }
  const waiting = (hosts.PENDING ?? 0) + (services.PENDING ?? 0);
  const good = ofServices > 0 ? (services.OK ?? 0) : (hosts.UP ?? 0);
  if (waiting > 0) {
    return {
      title: good === 0 ? 'Waiting for first results' : 'No problem so far',
      line: `${counted(waiting, 'check')} of ${(ofHosts + ofServices).toLocaleString('en-GB')} ${waiting === 1 ? 'has' : 'have'} not run yet.`,
      whole: false,
    };
  }
  if (slotsMissing === 0 && stale > 0) {
    return {
      title: 'No known problem',
      line: `${counted(stale, 'check')} may be out of date until ${stale === 1 ? 'its slot tells its' : 'their slots tell their'} newest state.`,
      whole: false,
    };
  }
  if (slotsMissing > 0) {
    return {
      title: 'No known problem',
      line: `${slotsMissing} of ${counted(slotsExpected, 'slot')} ${slotsMissing === 1 ? 'is' : 'are'} missing: what they check may be out of date.`,
      whole: false,
    };
  }
  return {
    title: ofServices > 0 ? `All ${counted(ofServices, 'service')} OK` : `All ${counted(ofHosts, 'host')} UP`,
    line: ofServices > 0 ? `on ${counted(ofHosts, 'host')}, every one UP.` : 'No service is configured.',
    whole: true,
  };
}
