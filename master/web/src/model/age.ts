// Times as people read them. Knows no clock: now is a parameter.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A span in at most two units. What lies ahead by a little (clocks differ) is no age: it counts as 0. */
export function span(ms: number): string {
  const of = Math.max(0, Math.floor(ms / SECOND) * SECOND);
  if (of < MINUTE) return `${of / SECOND} s`;
  if (of < HOUR) return `${Math.floor(of / MINUTE)} min`;
  if (of < DAY) {
    const minutes = Math.floor((of % HOUR) / MINUTE);
    return `${Math.floor(of / HOUR)} h${minutes ? ` ${minutes} min` : ''}`;
  }
  const hours = Math.floor((of % DAY) / HOUR);
  return `${Math.floor(of / DAY)} d${hours && of < 10 * DAY ? ` ${hours} h` : ''}`;
}

/** How long ago `at` was; a dash where there is no time. */
export function age(at: number | null, now: number): string {
  return at === null ? '–' : span(now - at);
}

const CLOCK = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const FULL = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'long' });

/** The time of day, in the reader's time zone. */
export function clockTime(at: number): string {
  return CLOCK.format(at);
}

const DATE = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });

/** The time of day, or the date where the time of day would mean another day. */
export function moment(at: number, now: number): string {
  return now - at < 18 * HOUR ? clockTime(at) : DATE.format(at);
}

/** Date, time and zone; empty where there is no time. */
export function fullTime(at: number | null): string {
  return at === null ? '' : FULL.format(at);
}

/** For `datetime` attributes. */
export function machineTime(at: number | null): string | undefined {
  return at === null ? undefined : new Date(at).toISOString();
}
