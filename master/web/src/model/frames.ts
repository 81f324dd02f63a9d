// Server-sent events out of pieces of text, by the rules of the HTML standard. Not the browser's EventSource: that one can send no
// token and hides comments, and the master's comment every ten seconds is what tells a dead connection from a quiet one.

export interface Frame {
  readonly event: string;
  readonly id: string;
  readonly data: string;
}

/** Characters of one frame at most. A longer one is no frame of ours: the connection is given up. */
export const FRAME_MAX = 16 * 1024 * 1024;

export class Frames {
  #rest = '';
  #event = '';
  #data: string[] = [];
  #size = 0;
  #id = '';
  #lastId = '';

  /** The id to come back with: the last one whose frame was whole. A frame without data moves it too. */
  get lastId(): string {
    return this.#lastId;
  }

  /** The frames that this piece completes. Throws when a frame grows beyond `FRAME_MAX`. */
  push(piece: string): Frame[] {
    const frames: Frame[] = [];
    const lines = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/u);
    this.#rest = lines.pop() ?? '';
    this.#size += piece.length;
    for (const line of lines) {
      if (line === '') {
        this.#lastId = this.#id;
        if (this.#data.length > 0) frames.push({ event: this.#event || 'message', id: this.#lastId, data: this.#data.join('\n') });
        [this.#event, this.#data, this.#size] = ['', [], this.#rest.length];
        continue;
      }
      const colon = line.indexOf(':');
      const name = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /u, '');
      if (name === 'event') this.#event = value;
      else if (name === 'data') this.#data.push(value);
      else if (name === 'id' && !value.includes('\0')) this.#id = value;
    }
    if (this.#size > FRAME_MAX) throw new Error('a frame of the event stream has no end');
    return frames;
  }
}
