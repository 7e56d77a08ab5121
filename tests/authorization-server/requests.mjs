// Counts the token requests of each client. Tests prove with it that a restart makes no token request, so every
// request counts on arrival, whatever its outcome.

/** So many times of arrival are kept of each client. */
const MAX_TIMES = 100;

export class Requests {
  #clients = new Map();

  /** `client` is undefined for a request without a client id. Returns the function that records the outcome. */
  arrived(client, outline) {
    const counts = this.#of(client ?? '');
    const last = { ...outline, status: null, at: new Date().toISOString() };
    counts.total += 1;
    counts.last = last;
    counts.times = [...counts.times, last.at].slice(-MAX_TIMES);
    counts.underway += 1;
    counts.most_underway = Math.max(counts.most_underway, counts.underway);
    let settled = false;
    return (status, minted) => {
      if (settled) return;
      settled = true;
      counts.underway -= 1;
      counts[minted ? 'succeeded' : 'failed'] += 1;
      last.status = status;
    };
  }

  of(client) {
    return this.#clients.get(client) ?? {
      total: 0, succeeded: 0, failed: 0, last: null, times: [], underway: 0, most_underway: 0,
    };
  }

  all() {
    const sum = { total: 0, succeeded: 0, failed: 0 };
    for (const counts of this.#clients.values()) for (const name in sum) sum[name] += counts[name];
    return { ...sum, clients: Object.fromEntries(this.#clients) };
  }

  #of(client) {
    if (!this.#clients.has(client)) this.#clients.set(client, this.of(client));
    return this.#clients.get(client);
  }
}
