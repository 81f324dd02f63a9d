import { expect, test } from 'vitest';
import { revealing, windowOf } from './window';

test('the window holds what is in sight, and never more than a few rows around it', () => {
  for (const count of [0, 1, 10, 1000, 100_000]) {
    for (const scrolled of [-20, 0, 333, 5_000, 9_999_999]) {
      const { first, end } = windowOf(scrolled, 600, 50, count);
      expect(first).toBeGreaterThanOrEqual(0);
      expect(end).toBeLessThanOrEqual(count);
      expect(end - first).toBeLessThanOrEqual(600 / 50 + 1 + 16);
      const top = Math.floor(Math.max(0, scrolled) / 50);
      for (let row = top; row < Math.min(count, top + 12); row += 1) expect(row >= first && row < end).toBe(true);
    }
  }
});

test('a row is revealed by the least movement', () => {
  expect(revealing(3, 0, 600, 50)).toBe(0);
  expect(revealing(20, 0, 600, 50)).toBe(450);
  expect(revealing(2, 450, 600, 50)).toBe(100);
});
