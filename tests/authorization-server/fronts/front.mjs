// Shared by the fronts: the check against the documentation, and the request to the provider.

import { request } from 'node:http';

import { Refusal } from '../http.mjs';

/** Throws at the first difference. Credentials are named, but not printed. */
export function expectDocumented(differences) {
  for (const [what, expected, got] of differences) {
    if (expected !== got) {
      throw new Refusal(400, {
        error: 'undocumented_request',
        error_description: `${what}: documented is ${JSON.stringify(expected)}, got ${JSON.stringify(got ?? null)}`,
      });
    }
  }
}

/** `providerUrl` is a separate listener that does not count: the request to the front has been counted. */
export function askProvider(providerUrl, form, authorization) {
  const body = new URLSearchParams(form).toString();
  return new Promise((resolve, reject) => {
    const req = request(providerUrl, {
      method: 'POST',
      headers: {
        accept: 'application/json',
        'content-type': 'application/x-www-form-urlencoded',
        'content-length': Buffer.byteLength(body),
        ...(authorization && { authorization }),
      },
    }, async (res) => {
      const chunks = [];
      for await (const chunk of res) chunks.push(chunk);
      resolve({ status: res.statusCode, answer: JSON.parse(Buffer.concat(chunks)) });
    });
    req.on('error', reject);
    req.end(body);
  });
}
