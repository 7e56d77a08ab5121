// GitHub's endpoint for installation access tokens, as an Enterprise Server has it: no OAuth, but an app's JWT in the header.
// The id of the installation is the client's `tenant`, its repositories are the client's `resources`.

import { createPublicKey, verify } from 'node:crypto';

import { formEncodedBasic, sendJson } from '../http.mjs';
import { askProvider, expectDocumented } from './front.mjs';

const PATH = /^\/api\/v3\/app\/installations\/([0-9]+)\/access_tokens$/;

const part = (text) => {
  try {
    return JSON.parse(Buffer.from(text, 'base64url'));
  } catch {
    return {};
  }
};
const jwtOf = (req) => /^Bearer ([^ ]+)$/.exec(req.headers.authorization ?? '')?.[1] ?? '';

export function github({ clients, providerUrl }) {
  const fail = (res, status, message) =>
    sendJson(res, status, { message, documentation_url: 'https://docs.github.com/rest', status: String(status) });

  return {
    serves: (path) => PATH.test(path),
    clientOf: (req) => part(jwtOf(req).split('.')[1] ?? '').iss,

    async answer(req, res, body, path) {
      const limits = JSON.parse(body);
      expectDocumented([
        ['method', 'POST', req.method],
        ['request target', path, req.url],
        ['Content-Type', 'application/json', req.headers['content-type']],
        ['Accept', 'application/vnd.github+json', req.headers.accept],
        ['X-GitHub-Api-Version', '2022-11-28', req.headers['x-github-api-version']],
        ['User-Agent is there', true, Boolean(req.headers['user-agent'])],
        ['the members of the body', '', Object.keys(limits).filter((name) => !['repositories', 'permissions'].includes(name)).join()],
      ]);

      const [header, claims, signature] = jwtOf(req).split('.');
      const { iss, iat, exp, ...others } = part(claims ?? '');
      const client = clients.get(iss);
      const now = Date.now() / 1000;
      const signed = client?.jwks && verify('RSA-SHA256', Buffer.from(`${header}.${claims}`),
        createPublicKey({ key: client.jwks.keys[0], format: 'jwk' }), Buffer.from(signature ?? '', 'base64url'));
      if (!signed) return fail(res, 401, 'A JSON web token could not be decoded');
      if (part(header).alg !== 'RS256' || Object.keys(others).length > 0) return fail(res, 401, 'undocumented claims');
      if (iat > now) return fail(res, 401, "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued");
      if (exp <= now || exp > now + 600) return fail(res, 401, "'Expiration time' claim ('exp') is too far in the future");
      if (PATH.exec(path)[1] !== client.tenant) return fail(res, 404, 'Not Found');
      if ((limits.repositories ?? []).some((name) => !client.resources.includes(name))) {
        return fail(res, 422, 'There is at least one repository that does not exist or is not accessible to the parent installation.');
      }

      const { status, answer } = await askProvider(providerUrl, { grant_type: 'client_credentials' },
        formEncodedBasic({ id: iss, secret: client.client_secret }));
      if (status !== 200) return fail(res, 500, 'Server Error');
      const expires = new Date(Date.now() + answer.expires_in * 1000).toISOString().replace(/\.[0-9]+Z$/, 'Z');
      return sendJson(res, 201, {
        token: answer.access_token, expires_at: expires, permissions: limits.permissions ?? { metadata: 'read' },
        repository_selection: limits.repositories ? 'selected' : 'all',
      });
    },
  };
}
