// All token endpoints: count the request, apply the client's behaviour, respond.

import { behave } from './behaviour.mjs';
import { rawBasic, readBody } from './http.mjs';

export async function serveToken(endpoint, { requests, clients }, req, res, path) {
  const body = await readBody(req);
  const clientId = endpoint.clientOf(req, body);
  const settle = requests.arrived(clientId, outline(req, body, path));

  // Counted before the response is sent: a test may read the counts right after it.
  let byProvider = false;
  const end = res.end.bind(res);
  res.end = (...args) => {
    settle(res.statusCode, byProvider && [200, 201].includes(res.statusCode));
    return end(...args);
  };
  res.once('close', () => settle(null, false));

  if (await behave(clients.get(clientId), res)) return;
  byProvider = true;
  await endpoint.answer(req, res, body, path);
}

function outline(req, body, path) {
  const parameters = parse(body);
  const { 'content-type': contentType, accept, authorization, 'user-agent': userAgent } = req.headers;
  return {
    method: req.method,
    path,
    content_type: contentType ?? null,
    accept: accept ?? null,
    user_agent: userAgent ?? null,
    // The scheme only.
    authorization: authorization?.split(' ')[0] ?? null,
    // The names, in the order in which they were sent.
    parameters: Object.keys(parameters),
    grant_type: parameters.grant_type ?? null,
    scope: parameters.scope ?? null,
    // The header of a client's assertion: which algorithm, key and certificate it names.
    assertion_header: part(parameters.client_assertion, 0) ?? null,
  };
}

function parse(body) {
  const text = body.toString('utf8');
  try {
    return Object(JSON.parse(text));
  } catch {
    return Object.fromEntries(new URLSearchParams(text));
  }
}

/** The client id of a request: of Basic, client_id, or the subject of an assertion. */
export function standardClientOf(req, body) {
  const basic = rawBasic(req);
  if (basic) return formDecode(basic.id);
  const form = new URLSearchParams(body.toString('utf8'));
  return form.get('client_id') ?? part(form.get('client_assertion'), 1)?.sub;
}

function formDecode(text) {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return text;
  }
}

/** Header (0) or claims (1) of a JWT. */
function part(jwt, index) {
  try {
    return JSON.parse(Buffer.from(jwt.split('.')[index], 'base64url'));
  } catch {
    return undefined;
  }
}
