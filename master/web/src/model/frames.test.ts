import { expect, test } from 'vitest';
import { FRAME_MAX, type Frame, Frames } from './frames';

function read(pieces: readonly string[]): { frames: Frame[]; lastId: string } {
  const frames = new Frames();
  return { frames: pieces.flatMap((piece) => frames.push(piece)), lastId: frames.lastId };
}

const TEXT = ': heartbeat\nid: 7\n\nid: 8\nevent: change\ndata: {"a":1}\n\nevent: slot\ndata: x\ndata:y\n\n';

test('frames come out whole, whatever the pieces', () => {
  const whole = read([TEXT]);
  expect(whole.frames).toEqual([
    { event: 'change', id: '8', data: '{"a":1}' },
    { event: 'slot', id: '8', data: 'x\ny' },
  ]);
  for (let size = 1; size < TEXT.length; size += 1) {
    const pieces = TEXT.match(new RegExp(`[^]{1,${size}}`, 'gu')) ?? [];
    expect(read(pieces)).toEqual(whole);
  }
});

test('line ends of all three kinds are line ends', () => {
  expect(read(['event: a\r\ndata: 1\r\n\r\nevent: b\rdata: 2\r\rdata: 3\n\n']).frames.map((frame) => frame.data)).toEqual(['1', '2', '3']);
  expect(read(['data: 1\r', '\n\r', '\n']).frames.map((frame) => frame.data)).toEqual(['1']);
});

test('a frame without data is none, but moves the place', () => {
  expect(read([': heartbeat\nid: 7\n\n'])).toEqual({ frames: [], lastId: '7' });
});

test('the place moves with whole frames only', () => {
  expect(read(['id: 7\n\nid: 8\ndata: cut']).lastId).toBe('7');
});

test('a frame without end is given up', () => {
  const frames = new Frames();
  const piece = `data: ${'x'.repeat(1024 * 1024)}`;
  expect(() => {
    for (let size = 0; size <= FRAME_MAX; size += piece.length) frames.push(piece);
  }).toThrow(/no end/u);
});
