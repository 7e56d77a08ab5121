#!/usr/bin/env python3
"""Checks an image (an archive of hack/image.sh) without a container runtime: unpacks it into an empty folder and runs the
operator there, as the image's user, with only the files of the image.

    sudo hack/image-check.py ARCHIVE [KUBECONFIG]

It must be small, run, resolve a name by DNS, and trust its root certificates. With a kubeconfig (with embedded certificates)
of a cluster with the CustomResourceDefinition, it must also become ready there, and the time is printed. Needs root for chroot
and for port 53 of a loopback address.
"""

import hashlib
import http.server
import json
import os
import pathlib
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request

LIMIT = 20 * 1000 * 1000  # bytes, compressed
NAME = "idp.image.test"
RESOLVER = "127.0.0.77"  # port 53 of this address is free
MINT = ["/tokensource-operator", "mint", "-f", "-", "--egress-allow", "127.0.0.0/8"]


def main():
    if len(sys.argv) not in (2, 3) or os.geteuid() != 0:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder, "root")
        user = unpack(sys.argv[1], root)
        check(root, user, pathlib.Path(folder))
        if len(sys.argv) == 3:
            start(root, user, pathlib.Path(sys.argv[2]).read_text())
    print("image: it runs without other files")


def unpack(archive, root):
    """Unpacks into `root` and checks the digests; returns the user."""
    with tarfile.open(archive) as layout:
        def blob(descriptor):
            kind, digest = descriptor["digest"].split(":")
            content = layout.extractfile(f"blobs/{kind}/{digest}").read()
            assert hashlib.new(kind, content).hexdigest() == digest, f"the digest of {digest}"
            assert len(content) == descriptor["size"], f"the size of {digest}"
            return content

        index = json.load(layout.extractfile("index.json"))
        manifest = json.loads(blob(index["manifests"][0]))
        config = json.loads(blob(manifest["config"]))
        layers = [blob(layer) for layer in manifest["layers"]]
    size = sum(map(len, layers))
    print(f"image: {size / 1e6:.1f} MB compressed")
    assert size < LIMIT, f"more than {LIMIT / 1e6} MB"
    assert config["config"]["Entrypoint"] == ["/tokensource-operator"], config
    labels = config["config"]["Labels"]
    assert all(labels.values()), labels
    for layer, unpacked in zip(layers, config["rootfs"]["diff_ids"], strict=True):
        with tempfile.NamedTemporaryFile() as file:
            file.write(layer)
            file.flush()
            with tarfile.open(file.name) as tar:
                tar.extractall(root)
            plain = subprocess.run(["gzip", "-dc", file.name], check=True, capture_output=True).stdout
        assert f"sha256:{hashlib.sha256(plain).hexdigest()}" == unpacked, "the layer's digest"
    # Default devices of the OCI runtime specification.
    (root / "dev").mkdir()
    for name, minor in [("null", 3), ("random", 8), ("urandom", 9)]:
        os.mknod(root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        os.chmod(root / "dev" / name, 0o666)
    user, group = map(int, config["config"]["User"].split(":"))
    assert user > 0 and group > 0, "root"
    return user, group


def inside(root, user):
    """Returns a function that enters the image in a new process."""
    def enter():
        os.chroot(root)
        os.chdir("/")
        os.setgroups([])
        os.setgid(user[1])
        os.setuid(user[0])

    return enter


def check(root, user, folder):
    def run(arguments, expected, stdin=""):
        ended = subprocess.run(
            arguments, preexec_fn=inside(root, user), env={}, input=stdin, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == expected, f"{arguments}: {ended.returncode}\n{ended.stdout}{ended.stderr}"
        return ended.stdout + ended.stderr

    print("image:", run(["/tokensource-operator", "--version"], 0).strip())

    # A kubelet writes this file, too.
    (root / "etc/resolv.conf").write_text(f"nameserver {RESOLVER}\noptions timeout:2 attempts:2\n")
    asked = answer_names()
    authority = make_certificates(folder)
    port = serve(folder)
    manifests = f"""
apiVersion: tokensource.dev/v1alpha1
kind: TokenSource
metadata: {{name: image}}
spec:
  provider: {{oauth2: {{tokenURL: "https://{NAME}:{port}/token"}}}}
  credentials: {{secretRef: {{name: image}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: image}}
stringData: {{client_id: id, client_secret: secret}}
"""
    said = run(MINT, 4, manifests)
    assert "is not trusted" in said, said
    assert asked, "the DNS server got no query"
    print(f"image: {NAME} is resolved by DNS, and an unknown certificate is refused")
    with open(root / "etc/ssl/certs/ca-certificates.crt", "a", encoding="ascii") as roots:
        roots.write(authority)
    run(MINT, 0, manifests)
    print("image: the certificates in /etc/ssl/certs/ca-certificates.crt are trusted")


def start(root, user, kubeconfig):
    (root / "kubeconfig").write_text(kubeconfig)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    operator = subprocess.Popen(
        ["/tokensource-operator", "run", "--admin-address", f"127.0.0.1:{port}"],
        preexec_fn=inside(root, user), env={"KUBECONFIG": "/kubeconfig"},
    )
    try:
        while not is_ready(port):
            assert operator.poll() is None, "it exited"
            assert time.monotonic() - began < 60, "it does not become ready in time"
            time.sleep(0.01)
        print(f"image: ready after {time.monotonic() - began:.2f} s")
    finally:
        operator.terminate()
        operator.wait(60)


def is_ready(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200
    except OSError:
        return False


def answer_names():
    """Starts a DNS server with one name; returns the list of query types."""
    asked = []
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((RESOLVER, 53))

    def answer():
        while True:
            query, client = listener.recvfrom(512)
            end = query.index(0, 12) + 5
            kind = struct.unpack("!H", query[end - 4 : end - 2])[0]
            asked.append(kind)
            records = b""
            if kind == 1:  # A; there are no AAAA records
                records = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton("127.0.0.1")
            head = query[:2] + struct.pack("!HHHHH", 0x8580, 1, 1 if records else 0, 0, 0)
            listener.sendto(head + query[12:end] + records, client)

    threading.Thread(target=answer, daemon=True).start()
    return asked


def make_certificates(folder):
    """Creates an authority, which is returned, and its certificate for NAME in server.pem."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    openssl("req", "-x509", *new_key, "-subj", "/CN=authority", "-keyout", "authority.key", "-out", "authority.crt")
    openssl("req", *new_key[:-2], "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text(f"subjectAltName=DNS:{NAME}\n")
    openssl(
        "x509", "-req", "-in", "server.csr", "-CA", "authority.crt", "-CAkey", "authority.key", "-CAcreateserial",
        "-days", "1", "-extfile", "names", "-out", "server.crt",
    )
    (folder / "server.pem").write_bytes((folder / "server.crt").read_bytes() + (folder / "server.key").read_bytes())
    return (folder / "authority.crt").read_text()


def serve(folder):
    """Starts a token endpoint; returns its port."""
    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps({"access_token": "t", "token_type": "Bearer", "expires_in": 300}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_):
            pass  # expected from a client that does not trust it

    server = Server(("127.0.0.1", 0), Endpoint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


if __name__ == "__main__":
    main()
