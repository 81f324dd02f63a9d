// One reading of the event stream, from opening to end. Decides only that a connection without a sign of life is dead; when to come
// back is the caller's affair.
import { Frames, type Frame } from '../model/frames';
import { type Client, Unreached } from './client';

/** The master says something at least every ten seconds. */
const SILENCE_MS = 25_000;

export interface Listener {
  /** The stream is open, or something came: data or a sign of life. */
  heard(): void;
  frames(frames: readonly Frame[], lastId: string): void;
}

/** Reads events after the journal index `since`, until the stream ends. Returns when the master ended it; throws otherwise. */
export async function follow(client: Client, since: string, ends: AbortSignal, listener: Listener): Promise<void> {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const either = AbortSignal.any([ends, silence.signal]);
    const response = await client.open('/stream', either, { Accept: 'text/event-stream', 'Last-Event-ID': since });
    if (!response.body) throw new Unreached('the stream has no body');
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const frames = new Frames();
    listener.heard();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      listener.heard();
      listener.frames(frames.push(value), frames.lastId);
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}
