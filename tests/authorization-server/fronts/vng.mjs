// VNG Cloud (GreenNode) IAM: JSON requests and responses, Basic with the raw bytes, an error format of its own.

import { formEncodedBasic, rawBasic, sendJson } from '../http.mjs';
import { askProvider, expectDocumented } from './front.mjs';

const PATH = '/accounts-api/v2/auth/token';
const BODY = '{"grant_type":"client_credentials","scope":"email"}';

export function vng({ clients, providerUrl }) {
  const fail = (res, code, message) => sendJson(res, 401, { errors: [{ code, message }] });

  return {
    serves: (path) => path === PATH,
    clientOf: (req) => rawBasic(req)?.id,

    async answer(req, res, body) {
      const basic = rawBasic(req);
      const canonical = basic && `Basic ${Buffer.from(`${basic.id}:${basic.secret}`).toString('base64')}`;
      expectDocumented([
        ['method', 'POST', req.method],
        ['request target', PATH, req.url],
        ['Content-Type', 'application/json', req.headers['content-type']],
        ['Accept', 'application/json', req.headers.accept],
        ['Authorization is "Basic", one space, base64 of id:secret', true,
          canonical !== undefined && canonical === req.headers.authorization],
        ['body', BODY, body.toString('utf8')],
      ]);

      const client = clients.get(basic.id);
      if (client?.lock_after_failures !== undefined && client.failedLogins >= client.lock_after_failures) {
        return fail(res, 'TOO_MANY_FAILED_LOGINS', 'Too many failed logins, try again later');
      }
      const { status, answer } = await askProvider(providerUrl, JSON.parse(BODY), formEncodedBasic(basic));
      if (status === 200) {
        client.failedLogins = 0;
        const { token_type, access_token, expires_in } = answer;
        return sendJson(res, 200, { token_type, access_token, expires_in, refresh_expires_in: 0 });
      }
      if (answer.error === 'invalid_client') {
        if (client) client.failedLogins += 1;
        return fail(res, 'AUTHENTICATION_FAILED', 'Authentication failed');
      }
      return sendJson(res, status, {
        errors: [{ code: answer.error.toUpperCase(), message: answer.error_description }],
      });
    },
  };
}
