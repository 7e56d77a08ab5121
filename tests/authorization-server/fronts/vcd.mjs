// VMware Cloud Director (Hi GIO Cloud): an API token is a refresh token, and requests name no client.

import { formEncodedBasic, sendJson } from '../http.mjs';
import { askProvider, expectDocumented } from './front.mjs';

const PATH = /^\/oauth\/(?:tenant\/([^/]+)|provider)\/token$/;

export function vcd({ clients, providerUrl, refreshTokenOwner }) {
  const apiToken = (body) => new URLSearchParams(body.toString('utf8')).get('refresh_token') ?? '';
  const fail = (res, status, minorErrorCode, message) => sendJson(res, status, { minorErrorCode, message });

  return {
    serves: (path) => PATH.test(path),
    clientOf: (_req, body) => refreshTokenOwner(apiToken(body)),

    async answer(req, res, body, path) {
      const token = apiToken(body);
      const documented = `grant_type=refresh_token&refresh_token=${encodeURIComponent(token)}`;
      expectDocumented([
        ['method', 'POST', req.method],
        ['request target', path, req.url],
        ['Content-Type', 'application/x-www-form-urlencoded', req.headers['content-type']],
        ['Accept', 'application/json', req.headers.accept],
        ['Authorization is absent', true, req.headers.authorization === undefined],
        ['the names in the body', 'grant_type,refresh_token',
          [...new URLSearchParams(body.toString('utf8')).keys()].join()],
        ['body is grant_type=refresh_token&refresh_token={escaped API token}', true,
          body.toString('utf8') === documented],
      ]);

      const clientId = refreshTokenOwner(token);
      const client = clients.get(clientId);
      const tenant = PATH.exec(path)[1];
      const called = tenant === undefined ? 'System' : decodeURIComponent(tenant);
      if (!client || (client.tenant !== undefined && client.tenant !== called)) {
        return fail(res, 400, 'invalid_grant', 'API token not found');
      }

      const form = { grant_type: 'refresh_token', refresh_token: token };
      const { status, answer } = client.token_endpoint_auth_method === 'none'
        ? await askProvider(providerUrl, { ...form, client_id: clientId })
        : await askProvider(providerUrl, form, formEncodedBasic({ id: clientId, secret: client.client_secret }));
      if (status !== 200) return fail(res, status, answer.error, answer.error_description);
      const { access_token, token_type, expires_in, refresh_token } = answer;
      return sendJson(res, 200, {
        access_token, token_type, expires_in, refresh_token: refresh_token === token ? null : refresh_token,
      });
    },
  };
}
