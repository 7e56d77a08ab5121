// A delay or an outage that a test has switched on for one client, instead of the provider.
// { status, body, headers, delay_ms, times }: without a status the provider serves the request after the delay;
// with `times` the behaviour ends after so many requests.

/** Whether the response has been sent. */
export async function behave(client, res) {
  const behaviour = client?.behaviour;
  if (!behaviour) return false;
  if (behaviour.times !== undefined) {
    behaviour.times -= 1;
    if (behaviour.times <= 0) client.behaviour = undefined;
  }
  const { status, body, headers = {}, delay_ms } = behaviour;
  if (delay_ms) await delay(delay_ms, res);
  if (res.closed) return true;
  if (status === undefined) return false;
  const isText = typeof body === 'string';
  res.writeHead(status, { 'content-type': isText ? 'text/plain' : 'application/json', ...headers });
  res.end(isText || body === undefined ? body : JSON.stringify(body));
  return true;
}

/** Ends early when the client disconnects. */
function delay(ms, res) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    res.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
