// Asks the API and tells its failures apart: not reached, refused, not allowed without a token. The token stays in this tab's session
// storage and travels in a header only, never in an address.

const ROOT = '/api/v1';
/** An answer later than this counts as none. */
const ANSWER_MS = 10_000;
const TOKEN = 'perigee.token';

/** No answer: no network, no master, or one that is too slow. */
export class Unreached extends Error {}

/** The master wants a token, or another one. */
export class Locked extends Error {}

/** The master answered with an error of its own. */
export class Refused extends Error {}

export function storedToken(): string | null {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

export function storeToken(token: string | null): void {
  try {
    if (token === null) sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, token);
  } catch {
    // Storage is closed to this page: the token lives as long as the page does.
  }
}

async function refusal(response: Response): Promise<Error> {
  let message = `the master answers ${response.status}`;
  try {
    const body: unknown = await response.json();
    const told = (body as { error?: { message?: unknown } } | null)?.error?.message;
    if (typeof told === 'string') message = told;
  } catch {
    // Something between here and the master answered, without the API's body.
  }
  if (response.status === 401 || response.status === 403) return new Locked(message);
  return response.status === 502 || response.status === 504 ? new Unreached(message) : new Refused(message);
}

export class Client {
  constructor(public token: string | null = storedToken()) {}

  /** A response that is good. `ends` aborts it while it is read, too. */
  async open(path: string, ends: AbortSignal, headers: Readonly<Record<string, string>> = {}): Promise<Response> {
    const all = this.token === null ? headers : { ...headers, Authorization: `Bearer ${this.token}` };
    let response: Response;
    try {
      response = await fetch(`${ROOT}${path}`, { headers: all, signal: ends, cache: 'no-store', credentials: 'omit' });
    } catch (error) {
      throw new Unreached(ends.aborted ? 'no answer in time' : 'no connection', { cause: error });
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }

  /** One answer as JSON. */
  async ask(path: string, parameters: Readonly<Record<string, string | number | null>> = {}): Promise<unknown> {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== null && value !== '') query.set(name, String(value));
    }
    const response = await this.open(query.size > 0 ? `${path}?${query}` : path, AbortSignal.timeout(ANSWER_MS));
    try {
      return await response.json();
    } catch (error) {
      throw new Unreached('the answer broke off', { cause: error });
    }
  }
}
