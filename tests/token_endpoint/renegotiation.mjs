// A server on OpenSSL, with TLS 1.2, that asks for a client certificate only after it has read a request: by renegotiation.
// Prints its port, and ends when its stdin closes.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:tls';

const [certificate, key] = process.argv.slice(2);
const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key), maxVersion: 'TLSv1.2' }, (socket) => {
  socket.on('error', () => {});
  socket.once('data', () => socket.renegotiate({ requestCert: true, rejectUnauthorized: true }, () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}')));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.resume().on('end', () => process.exit());
