// The certified provider, with the paths of a Keycloak realm, so that the path of VGS' URL works unchanged.

import { generateKeyPairSync, randomBytes, verify } from 'node:crypto';

import { Clients } from './clients.mjs';
import { registerTokenExchange } from './token-exchange.mjs';
import { createStorage } from './storage.mjs';

export const REALM = '/auth/realms/vgs';
export const TOKEN_PATH = `${REALM}/protocol/openid-connect/token`;

const A_FORTNIGHT = 14 * 24 * 3600;

/** oidc-provider prints advice for production servers, which this is not. */
function silenceAdvice() {
  for (const level of ['info', 'warn']) {
    const write = console[level].bind(console);
    console[level] = (...args) => (/oidc-provider (NOTICE|WARNING):/.test(args[0]) ? undefined : write(...args));
  }
}

/** `mtlsUrl`: where client certificates are requested, if not at `url`. */
export async function createAuthorizationServer(url, mtlsUrl) {
  silenceAdvice();
  const { Provider, errors } = await import('oidc-provider');

  const clients = new Clients((metadata) => provider.Client.validate(metadata));
  // Elliptic, because an RSA key would double the start time.
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const signingKey = { ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' };
  const defaultResource = `${url}/resource`;

  /** Scopes belong to the client, as in Keycloak: a request without scopes gets all of them, others are refused. */
  const settleScope = (ctx, token, { scope }) => {
    const asked = ctx.oidc.params.scope;
    if (asked === undefined) {
      token.scope = scope || undefined;
      return;
    }
    const allowed = new Set(scope.split(' '));
    const foreign = asked.split(' ').find((name) => !allowed.has(name));
    if (foreign !== undefined) throw new errors.InvalidScope('requested scope is not allowed', foreign);
  };

  const provider = new Provider(`${url}${REALM}`, {
    adapter: createStorage((id) => clients.metadata(id)),
    jwks: { keys: [signingKey] },
    cookies: { keys: [randomBytes(16).toString('hex')] },
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'tls_client_auth', 'none'],
    enabledJWA: {
      clientAuthSigningAlgValues: ['RS256', 'RS384', 'RS512', 'PS256', 'ES256', 'ES384', 'Ed25519', 'EdDSA'],
    },
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    ...(mtlsUrl && { discovery: { mtls_endpoint_aliases: { token_endpoint: `${mtlsUrl}${TOKEN_PATH}` } } }),
    routes: {
      authorization: '/protocol/openid-connect/auth',
      jwks: '/protocol/openid-connect/certs',
      token: '/protocol/openid-connect/token',
    },
    features: {
      clientCredentials: { enabled: true },
      mTLS: {
        enabled: true,
        tlsClientAuth: true,
        // From the connection itself: there is no proxy whose headers would have to be trusted.
        getCertificate: (ctx) => peerCertificate(ctx)?.toString(),
        certificateAuthorized: (ctx) => ctx.socket.authorized === true,
        certificateSubjectMatches: (ctx, property, expected) =>
          property === 'tls_client_auth_san_dns'
            && (peerCertificate(ctx)?.subjectAltName ?? '').split(', ').includes(`DNS:${expected}`),
      },
      devInteractions: { enabled: false },
      rpInitiatedLogout: { enabled: false },
      userinfo: { enabled: false },
      resourceIndicators: {
        enabled: true,
        // Always one: a JWT needs an audience, and without a resource the provider drops unknown scopes.
        defaultResource: (_ctx, _client, oneOf) => oneOf ?? defaultResource,
        useGrantedResource: () => true,
        getResourceServerInfo: (_ctx, resource, client) => {
          const { resources, scope, access_token_format } = clients.get(client.clientId);
          if (resources && resource !== defaultResource && !resources.includes(resource)) {
            throw new errors.InvalidTarget();
          }
          return {
            audience: resource,
            scope,
            accessTokenFormat: access_token_format,
            jwt: { sign: { alg: 'ES256' } },
          };
        },
      },
    },
    ttl: {
      // The first hook that sees both the request and its token, hence the scopes.
      ClientCredentials: (ctx, token, { clientId }) => {
        settleScope(ctx, token, clients.get(clientId));
        return clients.get(clientId).access_token_ttl;
      },
      AccessToken: (_ctx, _token, { clientId }) => clients.get(clientId).access_token_ttl,
      RefreshToken: A_FORTNIGHT,
      Grant: A_FORTNIGHT,
      IdToken: 300,
      AuthorizationCode: 60,
      Interaction: 60,
      Session: 60,
    },
    rotateRefreshToken: (ctx) => clients.get(ctx.oidc.client.clientId).rotate_refresh_token,
    findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    clientBasedCORS: () => false,
    renderError: (ctx, out) => {
      ctx.body = out;
    },
  });

  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route === 'token' && ctx.status === 200) {
      // Keycloak's additional members, as VGS documents them.
      ctx.body = { ...ctx.body, refresh_expires_in: 0, 'not-before-policy': 1620379100 };
    }
  });
  registerTokenExchange({ provider, clients, errors });
  provider.on('server_error', (_ctx, error) => console.error('authorization server:', error));

  // A spent or revoked token is not in the storage any more, but a request that presents it must be counted.
  const refreshTokenOwners = new Map();
  provider.on('refresh_token.saved', (token) => refreshTokenOwners.set(token.jti, token.clientId));

  return {
    provider,
    clients,
    refreshTokenOwner: (token) => refreshTokenOwners.get(token),
    seedRefreshToken: (clientId) => seedRefreshToken(provider, clientId, clients.get(clientId).scope, defaultResource),
    introspect: (token) => introspect(provider, publicKey, token),
  };
}

/** RFC 8705: of the connection itself; undefined without TLS or without a certificate. */
function peerCertificate(ctx) {
  return ctx.socket.getPeerX509Certificate?.();
}

/** As if a user had logged in and consented. */
async function seedRefreshToken(provider, clientId, scope, resource) {
  const client = await provider.Client.find(clientId);
  const accountId = `person-of-${clientId}`;
  const grant = new provider.Grant({ accountId, clientId });
  if (scope) {
    grant.addOIDCScope(scope);
    grant.addResourceScope(resource, scope);
  }
  const grantId = await grant.save();
  const token = new provider.RefreshToken({
    accountId, client, grantId, gty: 'authorization_code', scope: scope || undefined, resource,
  });
  return token.save();
}

async function introspect(provider, publicKey, token) {
  const found = jwtClaims(publicKey, token)
    ?? await provider.AccessToken.find(token)
    ?? await provider.ClientCredentials.find(token);
  if (found === undefined || found.exp * 1000 <= Date.now()) return { active: false };
  return {
    active: true, client_id: found.clientId ?? found.client_id, exp: found.exp, scope: found.scope ?? '',
  };
}

/** The provider does not store the JWTs that it signs. */
function jwtClaims(publicKey, token) {
  const parts = token.split('.');
  if (parts.length !== 3) return undefined;
  const signature = Buffer.from(parts[2], 'base64url');
  const key = { key: publicKey, dsaEncoding: 'ieee-p1363' };
  if (!verify('sha256', Buffer.from(`${parts[0]}.${parts[1]}`), key, signature)) return undefined;
  return JSON.parse(Buffer.from(parts[1], 'base64url'));
}
