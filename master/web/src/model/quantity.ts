// Numbers as people read them: bytes, clock offsets, performance data.

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(count: number): string {
  let [value, unit] = [count, 0];
  while (value >= 1024 && unit < BINARY.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${BINARY[unit]}`;
}

/** A signed offset: milliseconds, or seconds from ten of them on. */
export function offset(ms: number): string {
  const sign = ms > 0 ? '+' : ms < 0 ? '−' : '±';
  const size = Math.abs(ms);
  return size < 10_000 ? `${sign}${size} ms` : `${sign}${Math.round(size / 1000)} s`;
}

/** A measured value with at most six digits that count, and its unit as the plugin wrote it. */
export function measured(value: number, unit: string): string {
  const digits = Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  return unit === '' ? digits : unit === '%' ? `${digits} %` : `${digits} ${unit}`;
}

export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString('en-GB')} ${count === 1 ? one : many}`;
}
