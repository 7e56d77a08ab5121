// Token exchange (RFC 8693), for the subject tokens that a client may exchange: verified against the keys of their issuer.

import { createLocalJWKSet, jwtVerify } from 'jose';

const GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange';
const PARAMETERS = ['subject_token', 'subject_token_type', 'requested_token_type', 'scope', 'audience'];

export function registerTokenExchange({ provider, clients, errors }) {
  const exchange = async (ctx) => {
    const { client, params } = ctx.oidc;
    const { subject_tokens } = clients.get(client.clientId);
    if (subject_tokens === undefined) throw new errors.UnauthorizedClient();
    const { jwks, issuer, audience, subject } = subject_tokens;
    try {
      const checks = { issuer, audience, subject, requiredClaims: ['exp'] };
      const { payload } = await jwtVerify(params.subject_token, createLocalJWKSet(jwks), checks);
      if (payload.aud.length !== 1) throw new Error('one audience');
    } catch (error) {
      throw new errors.InvalidGrant(error.message);
    }
    const token = new provider.ClientCredentials({ client });
    ctx.oidc.entity('ClientCredentials', token);
    ctx.body = {
      access_token: await token.save(),
      expires_in: token.expiration,
      issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      token_type: token.tokenType,
    };
  };
  provider.registerGrantType(GRANT, exchange, PARAMETERS, []);
}
