// HTTP helpers of all modules.

const LIMIT = 1024 * 1024;

/** A response that a handler throws: status and a JSON body. */
export class Refusal extends Error {
  constructor(status, body) {
    super(JSON.stringify(body));
    this.status = status;
    this.body = body;
  }
}

export async function readBody(req) {
  const chunks = [];
  let length = 0;
  for await (const chunk of req) {
    length += chunk.length;
    if (length > LIMIT) throw new Refusal(413, { error: 'request body too large' });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

export function sendJson(res, status, body, headers = {}) {
  res.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store', ...headers });
  res.end(JSON.stringify(body));
}

/** The Basic credentials as sent, not percent-decoded; undefined if there are none. */
export function rawBasic(req) {
  const [, encoded] = /^Basic ([A-Za-z0-9+/]+={0,2})$/i.exec(req.headers.authorization ?? '') ?? [];
  if (encoded === undefined) return undefined;
  const text = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 0 ? undefined : { id: text.slice(0, colon), secret: text.slice(colon + 1) };
}

/** RFC 6749, 2.3.1: the encoding that the certified provider expects. */
export function formEncodedBasic({ id, secret }) {
  const pair = `${encodeURIComponent(id)}:${encodeURIComponent(secret)}`;
  return `Basic ${Buffer.from(pair).toString('base64')}`;
}
