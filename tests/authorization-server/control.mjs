// The control interface for tests and the demo: JSON under /control/, and a resource protected by tokens.

import { readBody, Refusal, sendJson } from './http.mjs';

export function control({ clients, requests, seedRefreshToken, introspect }) {
  const known = (id) => {
    if (!clients.get(id)) throw new Refusal(404, { error: 'unknown_client' });
    return id;
  };

  const routes = [
    ['PUT', /^\/control\/clients\/([^/]+)$/, async (id, body) => clients.replace(id, body)],
    ['PATCH', /^\/control\/clients\/([^/]+)$/, async (id, body) => clients.change(id, body)],
    ['DELETE', /^\/control\/clients\/([^/]+)$/, async (id) => ({ removed: clients.remove(id) })],
    ['POST', /^\/control\/clients\/([^/]+)\/refresh-tokens$/,
      async (id) => ({ refresh_token: await seedRefreshToken(known(id)) })],
    // Of an unregistered client, too: its requests count.
    ['GET', /^\/control\/clients\/([^/]+)\/requests$/, async (id) => requests.of(id)],
    ['GET', /^\/control\/requests$/, async () => requests.all()],
    ['POST', /^\/control\/introspect$/, async (_id, { token }) => introspect(String(token))],
  ];

  return async (req, res, path) => {
    for (const [method, pattern, handler] of routes) {
      const match = pattern.exec(path);
      if (!match || method !== req.method) continue;
      const body = await readBody(req);
      const answer = await handler(match[1] && decodeURIComponent(match[1]), body.length ? parse(body) : {});
      return sendJson(res, 200, answer);
    }
    throw new Refusal(404, { error: 'no such control', error_description: `${req.method} ${path}` });
  };
}

function parse(body) {
  try {
    return JSON.parse(body);
  } catch {
    throw new Refusal(400, { error: 'invalid JSON' });
  }
}

export async function resource(introspect, req, res) {
  const [, token] = /^Bearer (\S+)$/i.exec(req.headers.authorization ?? '') ?? [];
  const found = token === undefined ? { active: false } : await introspect(token);
  if (!found.active) {
    return sendJson(res, 401, { error: 'invalid_token' }, { 'www-authenticate': 'Bearer error="invalid_token"' });
  }
  return sendJson(res, 200, { client_id: found.client_id });
}
