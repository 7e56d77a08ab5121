// The registered clients: their metadata for the certified provider, and the settings of this server.

import { Refusal } from './http.mjs';

const DEFAULTS = {
  client_secret: undefined,
  token_endpoint_auth_method: 'client_secret_basic',
  grant_types: ['client_credentials'],
  scope: '',
  access_token_ttl: 300,
  access_token_format: 'opaque',
  rotate_refresh_token: false,
  jwks: undefined,
  // RFC 8705, 2.1.2: the name in the certificate of a tls_client_auth client.
  tls_client_auth_san_dns: undefined,
  // RFC 8707: the resource indicators that the client may request; undefined: any.
  resources: undefined,
  // Token exchange (RFC 8693): { jwks, issuer, audience, subject } of the subject tokens that the client may exchange.
  subject_tokens: undefined,
  // VMware Cloud Director only: the tenant whose endpoint accepts this client's API tokens; undefined: any.
  tenant: undefined,
  // VNG Cloud only: after so many consecutive failed logins all further ones are refused; undefined: never.
  lock_after_failures: undefined,
  // { status, body, headers, delay_ms, times }: see behaviour.mjs.
  behaviour: undefined,
};

const BEHAVIOUR = new Set(['status', 'body', 'headers', 'delay_ms', 'times']);

function refuse(message) {
  throw new Refusal(400, { error: 'invalid_client_spec', error_description: message });
}

function check(client) {
  for (const name of Object.keys(client)) {
    // With a misspelt member a test could pass for the wrong reason.
    if (!(name in DEFAULTS)) refuse(`unknown member ${name}`);
  }
  if (!Number.isSafeInteger(client.access_token_ttl) || client.access_token_ttl < 1) {
    refuse('access_token_ttl must be a positive whole number of seconds');
  }
  if (!['opaque', 'jwt'].includes(client.access_token_format)) refuse('access_token_format must be opaque or jwt');
  if (typeof client.rotate_refresh_token !== 'boolean') refuse('rotate_refresh_token must be a boolean');
  if (typeof client.scope !== 'string') refuse('scope must be a string');
  for (const name of Object.keys(client.behaviour ?? {})) {
    if (!BEHAVIOUR.has(name)) refuse(`unknown member behaviour.${name}`);
  }
}

export class Clients {
  #clients = new Map();

  /** `validate` is the certified provider's validation of client metadata. */
  constructor(validate) {
    this.validate = validate;
  }

  get(id) {
    return this.#clients.get(id);
  }

  /** The client for the provider's adapter: a change applies to the next request. */
  metadata(id) {
    const client = this.#clients.get(id);
    return client && metadata(id, client);
  }

  async replace(id, spec) {
    return this.#set(id, { ...DEFAULTS, ...spec });
  }

  async change(id, spec) {
    const client = this.#clients.get(id);
    if (client === undefined) throw new Refusal(404, { error: 'unknown_client' });
    return this.#set(id, { ...client, ...spec });
  }

  remove(id) {
    return this.#clients.delete(id);
  }

  async #set(id, wanted) {
    const client = Object.fromEntries(Object.entries(wanted).map(([k, v]) => [k, v ?? DEFAULTS[k]]));
    check(client);
    try {
      await this.validate(metadata(id, client));
    } catch (error) {
      refuse(error.error_description ?? error.message);
    }
    client.failedLogins = 0;
    this.#clients.set(id, Object.defineProperty(client, 'failedLogins', { enumerable: false, writable: true }));
    return client;
  }
}

function metadata(id, client) {
  const { token_endpoint_auth_method, grant_types, jwks, tls_client_auth_san_dns } = client;
  const needsSecret = token_endpoint_auth_method.startsWith('client_secret_');
  return {
    client_id: id,
    token_endpoint_auth_method,
    grant_types,
    response_types: [],
    redirect_uris: [],
    ...(needsSecret && { client_secret: client.client_secret }),
    ...(jwks && { jwks }),
    ...(tls_client_auth_san_dns && { tls_client_auth_san_dns }),
    // Not `scope`: the provider accepts a fixed list of scopes only; provider.mjs checks them.
  };
}
