"""A real control plane: etcd and kube-apiserver with RBAC, without kubelet and controllers.

So custom resources, validation, watches and access rules are the real ones, while pods never run, owner references are
not collected and namespaces stay Terminating: use one namespace per test and never wait for its end. The API server can
be taken away and brought back on its own; its data lies in etcd.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from devstack import binaries
from devstack.ports import HOST, free_port
from devstack.processes import Daemon

ADMIN = "admin"
USERS = {  # user name → groups; who is in no group may nothing until a role is bound to the name
    ADMIN: ("system:masters",),
    "operator": (),
    "developer": (),
    "viewer": (),
}
NAMESPACE = "default"
CERTIFICATE_MAX_AGE_SECONDS = 300 * 86_400  # the API server makes it valid for one year
REQUEST_TIMEOUT_SECONDS = 5


class ControlPlane:
    """The control plane of one data folder, whether it runs or not; `start` makes it run."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.etcd = Daemon("etcd", self.data_dir)
        self.apiserver = Daemon("kube-apiserver", self.data_dir)

    @classmethod
    def start(cls, data_dir: Path, port: int | None = None) -> ControlPlane:
        """Start what does not run, with the data of an earlier run, and return once it is ready.

        Without `port` it is the one it had before, else a free one. Raises DevstackError.
        """
        plane = cls(data_dir)
        if not (plane.etcd.is_running and plane.apiserver.adopt(port)):
            plane._start(port)
        plane.apiserver.wait_until(plane.is_ready)
        plane.write_kubeconfig(ADMIN, plane.kubeconfig)
        return plane

    @property
    def port(self) -> int | None:
        """The secure port of the API server, None before the first start."""
        return self.apiserver.port

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        """The admin's; its context's namespace is `default`."""
        return self.data_dir / "kubeconfig"

    @property
    def kubectl(self) -> Path:
        return binaries.control_plane()["kubectl"]

    @property
    def certificate_authority(self) -> str:
        """PEM of the certificate that signed the API server's own, which is the last one of the file it writes."""
        chain = (self.data_dir / "certificates" / "apiserver.crt").read_text()
        return chain[chain.rindex("-----BEGIN CERTIFICATE-----") :]

    @property
    def is_running(self) -> bool:
        return self.etcd.is_running and self.apiserver.is_running

    def token(self, user: str) -> str:
        """The bearer token of one of `USERS`."""
        tokens: dict[str, str] = json.loads((self.data_dir / "tokens.json").read_text())
        return tokens[user]

    def write_kubeconfig(self, user: str, path: Path | None = None, token: str | None = None) -> Path:
        """Write a kubeconfig for one of `USERS`, or for any `token` such as one of `kubectl create token`."""
        path = path or self.data_dir / f"kubeconfig-{user}"
        authority = base64.b64encode(self.certificate_authority.encode()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": user, "user": {"token": token or self.token(user)}}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": user, "namespace": NAMESPACE}}],
            "current-context": "local",
        }
        _write_private(path, json.dumps(config, indent=2))  # JSON is YAML
        return path

    def start_apiserver(self) -> None:
        """Bring the API server back on its port, and return once it is ready."""
        self._run_apiserver(self.apiserver.choose_port(None))
        self.apiserver.wait_until(self.is_ready)

    def kill_apiserver(self) -> None:
        """Take the API server away as a crash would; etcd and with it the data stay."""
        self.apiserver.kill()

    def stop(self) -> bool:
        """End both, the API server first: without etcd its graceful stop hangs. Returns whether anything ran."""
        apiserver_ran = self.apiserver.stop()
        return self.etcd.stop() or apiserver_ran

    def is_ready(self) -> bool:
        """Whether the API server says so, and the namespace that everything lives in exists."""
        return self._answers("/readyz") and self._answers(f"/api/v1/namespaces/{NAMESPACE}")

    def _start(self, port: int | None) -> None:
        if not self.etcd.is_running:
            self.apiserver.kill()  # it lost its etcd, which comes back on another port
        port = self.apiserver.choose_port(port)
        self._prepare()
        if not self.etcd.is_running:
            self._run_etcd()
        self.etcd.wait_until(lambda: _get(f"http://{HOST}:{self.etcd.port}/health"))
        self._run_apiserver(port)

    def _prepare(self) -> None:
        """Make tokens and keys on the first start; drop a certificate before it expires."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if not (self.data_dir / "tokens.json").exists():
            tokens = {user: secrets.token_hex(16) for user in USERS}
            rows = [f'{tokens[user]},{user},{user},"{",".join(groups)}"' for user, groups in USERS.items()]
            _write_private(self.data_dir / "tokens.csv", "\n".join(rows) + "\n")
            _write_private(self.data_dir / "tokens.json", json.dumps(tokens))
        if not (self.data_dir / "service-account.key").exists():
            _write_private(self.data_dir / "service-account.key", _new_private_key())
        certificate = self.data_dir / "certificates" / "apiserver.crt"
        if certificate.exists() and time.time() - certificate.stat().st_mtime > CERTIFICATE_MAX_AGE_SECONDS:
            certificate.unlink()
            certificate.with_suffix(".key").unlink(missing_ok=True)  # one without the other is refused

    def _run_etcd(self) -> None:
        client_port, peer_port = free_port(), free_port()
        client, peer = f"http://{HOST}:{client_port}", f"http://{HOST}:{peer_port}"
        command: list[str | Path] = [
            binaries.control_plane()["etcd"],
            "--name=local",
            f"--data-dir={self.data_dir / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=local={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]
        self.etcd.start(command, port=client_port)

    def _run_apiserver(self, port: int) -> None:
        key = self.data_dir / "service-account.key"
        command: list[str | Path] = [
            binaries.control_plane()["kube-apiserver"],
            f"--etcd-servers=http://{HOST}:{self.etcd.port}",
            f"--cert-dir={self.data_dir / 'certificates'}",
            f"--bind-address={HOST}",
            f"--secure-port={port}",
            f"--advertise-address={HOST}",
            "--endpoint-reconciler-type=none",  # it refuses a loopback address, and nothing here looks endpoints up
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.data_dir / 'tokens.csv'}",
            "--disable-admission-plugins=ServiceAccount",  # no controller makes the service accounts it asks for
        ]
        self.apiserver.start(command, port=port)

    def _answers(self, path: str) -> bool:
        try:
            trust = ssl.create_default_context(cadata=self.certificate_authority)
        except (OSError, ValueError):  # not written yet, or half
            return False
        return _get(f"{self.url}{path}", self.token(ADMIN), trust)


def _get(url: str, token: str = "", trust: ssl.SSLContext | None = None) -> bool:
    """Whether a GET answers 200; a proxy of the environment is never asked, this is loopback."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with opener.open(request, timeout=REQUEST_TIMEOUT_SECONDS) as answer:
            return bool(answer.status == 200)
    except OSError:  # refused, not ready (HTTPError), or TLS not up yet
        return False


def _new_private_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return encoded.decode()


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.rename(path)
