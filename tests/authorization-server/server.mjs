// An authorization server for tests and the demo: the certified oidc-provider, thin fronts for two vendors that it
// cannot speak, and a control interface. One line on stdout when it is ready: {"url":"http://127.0.0.1:PORT"}.

import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { parseArgs } from 'node:util';

import { control, resource } from './control.mjs';
import { github } from './fronts/github.mjs';
import { vcd } from './fronts/vcd.mjs';
import { vng } from './fronts/vng.mjs';
import { Refusal, sendJson } from './http.mjs';
import { createAuthorizationServer, REALM, TOKEN_PATH } from './provider.mjs';
import { Requests } from './requests.mjs';
import { serveToken, standardClientOf } from './token-endpoints.mjs';

const LOOPBACK = '127.0.0.1';
const { values: options } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    // Another address than loopback, for clients in pods.
    host: { type: 'string', default: LOOPBACK },
    'until-stdin-closes': { type: 'boolean', default: false },
    'tls-cert': { type: 'string' },
    'tls-key': { type: 'string' },
    // The authorities of client certificates (RFC 8705). Clients without one are served, too.
    'tls-client-ca': { type: 'string' },
    // Requests client certificates only on a second port, which the metadata name (mtls_endpoint_aliases).
    'mtls-alias': { type: 'boolean', default: false },
  },
});

const tls = options['tls-cert'] !== undefined && {
  cert: readFileSync(options['tls-cert']),
  key: readFileSync(options['tls-key']),
};
const mutualTls = tls && options['tls-client-ca'] !== undefined && {
  ...tls,
  ca: readFileSync(options['tls-client-ca']),
  requestCert: true,
  rejectUnauthorized: false,
};
const server = tls ? https.createServer(!options['mtls-alias'] && mutualTls || tls) : http.createServer();
const servers = [server];

const port = await listen(server, Number(options.port), options.host);
const url = `${tls ? 'https' : 'http'}://${options.host}:${port}`;
let mtlsUrl;
if (options['mtls-alias']) {
  servers.push(https.createServer(mutualTls));
  mtlsUrl = `https://${LOOPBACK}:${await listen(servers[1], 0)}`;
}
const authorizationServer = await createAuthorizationServer(url, mtlsUrl);
const { provider, clients, introspect } = authorizationServer;
const provide = provider.callback();

const backstage = http.createServer(provide);
const providerUrl = `http://${LOOPBACK}:${await listen(backstage, 0)}${TOKEN_PATH.slice(REALM.length)}`;

const requests = new Requests();
const controlled = control({ ...authorizationServer, requests });
const tokenEndpoints = [
  vng({ clients, providerUrl }),
  vcd({ ...authorizationServer, providerUrl }),
  github({ clients, providerUrl }),
  { serves: (path) => path === TOKEN_PATH, clientOf: standardClientOf, answer: toProvider },
];

/** The provider's routes are relative to its realm; it takes a body that was read before from `req.body`. */
function toProvider(req, res, body) {
  req.originalUrl = req.url;
  req.url = req.url.slice(REALM.length);
  req.body = body;
  return provide(req, res);
}

async function route(req, res) {
  const path = req.url.split('?', 1)[0];
  const endpoint = tokenEndpoints.find(({ serves }) => serves(path));
  if (endpoint) return serveToken(endpoint, { requests, clients }, req, res, path);
  if (path.startsWith('/control/')) return controlled(req, res, path);
  if (path === '/resource') return resource(introspect, req, res);
  if (path.startsWith(`${REALM}/`)) return toProvider(req, res);
  throw new Refusal(404, { error: 'not_found', error_description: path });
}

for (const each of servers) {
  // Longer than clients keep idle connections: if the server closes first, a request fails now and then.
  each.keepAliveTimeout = 600_000;
  each.on('request', (req, res) => {
    route(req, res).catch((error) => {
      if (!(error instanceof Refusal)) console.error('authorization server:', error);
      if (res.headersSent || res.closed) return res.destroy();
      return sendJson(res, error.status ?? 500, error.body ?? { error: 'server_error' });
    });
  });
}

for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
if (options['until-stdin-closes']) {
  // So that it cannot outlive a test that was killed.
  for (const event of ['end', 'close', 'error']) process.stdin.on(event, () => process.exit(0));
  process.stdin.resume();
}
console.log(JSON.stringify({ url }));

function listen(listener, wanted, host = LOOPBACK) {
  return new Promise((resolve, reject) => {
    listener.once('error', reject);
    listener.listen(wanted, host, () => resolve(listener.address().port));
  });
}
