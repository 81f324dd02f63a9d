// Answers of the API as tests need them: whole, in the API's own spelling, changed in what a test is about.

export function object(host: string, service: string | null, more: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    host,
    service,
    region: 'eu',
    slot: 1,
    state: service === null ? 'UP' : 'OK',
    state_type: 'HARD',
    attempt: 1,
    max_attempts: 3,
    output: 'fine',
    long_output: '',
    perfdata: '',
    metrics: [],
    last_check: '2026-11-21T10:00:00.000Z',
    next_check: '2026-11-21T10:01:00.000Z',
    last_change: '2026-11-21T09:00:00.000Z',
    last_hard_change: '2026-11-21T09:00:00.000Z',
    acknowledged: false,
    downtime_depth: 0,
    reachable: true,
    stale: false,
    exit: null,
    duration: 0.05,
    authenticated: null,
    passive: false,
    command: 'nrpe',
    groups: ['web'],
    version: 1,
    generation: 1,
    ...more,
  };
}

export function slot(region: string, number: number, more: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    region,
    slot: number,
    expected: true,
    connected: true,
    present: true,
    stale: false,
    remote: '127.0.0.1:40001',
    instance: 'ab',
    software: '0.1.0',
    since: '2026-11-21T09:00:00.000Z',
    silent_seconds: 1,
    applied_generation: 1,
    checks: 10,
    hosts: 3,
    undelivered: 0,
    spool_bytes: 0,
    lag_seconds: 0,
    late: 0,
    memory_only: false,
    clock_offset_ms: 2,
    results: 100,
    refused: 0,
    last_result: '2026-11-21T10:00:00.000Z',
    others: 0,
    ...more,
  };
}

export function status(more: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    version: '0.1.0',
    installation: 'd3',
    generation: 1,
    index: 100,
    now: '2026-11-21T10:00:00.000Z',
    hosts: { UP: 6, DOWN: 0, PENDING: 0 },
    services: { OK: 20, WARNING: 0, CRITICAL: 0, UNKNOWN: 0, PENDING: 0 },
    problems: 0,
    slots: { expected: 4, connected: 4, missing: 0, seen: 4 },
    gaps: 0,
    held_off: false,
    read_only: false,
    source_differs: false,
    ...more,
  };
}
