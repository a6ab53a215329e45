"""What a cluster is given pulls a saved build: the secret as it is printed, and the provider."""

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.engines import Containerd, Podman
from tests.e2e.images import busybox_context
from tests.e2e.kubectl import Kubectl, kubectl
from tests.e2e.processes import ROOT, environment, run
from tests.e2e.server import LAYOVER, LayoverServer, SavedBuild
from tests.e2e.test_registry_logins import write_hosts
from tests.oidc_provider import Issuer, OidcProvider


@pytest.fixture(scope="module")
def saved(tls_server: LayoverServer, short_tmp: Path) -> SavedBuild:
    return tls_server.save(busybox_context(short_tmp / "kubernetes-context", "in a pod"))


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kubectl]:
    with kubectl(tmp_path) as kube:
        yield kube


def login_in(secret: dict[str, Any]) -> str:
    """The file of logins that a secret of this type holds."""
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    return base64.b64decode(secret["data"][".dockerconfigjson"], validate=True).decode()


def test_the_printed_secret_is_taken_by_kubectl_and_pulls_with_podman_and_containerd(
    tls_server: LayoverServer,
    containerd: Containerd,
    podman: Podman,
    kube: Kubectl,
    saved: SavedBuild,
    tmp_path: Path,
) -> None:
    for arguments in (("layover", saved.id), ("layover", "--output", "json")):
        printed = tls_server.cli("kube-secret", *arguments, "--expires", "1h").stdout
        # Validation asks the cluster for its schema, which is more than can be had here.
        created = kube(
            *("create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"),
            stdin=printed,
        )
        secret = json.loads(created.stdout)
        assert secret["metadata"]["annotations"]["layover/project-id"] == tls_server.project_id
        logins = login_in(secret)
        ((host, login),) = json.loads(logins)["auths"].items()
        assert host == tls_server.host
        # Just what kubectl makes itself of the same login.
        made = kube(
            *("create", "secret", "docker-registry", "layover", "--dry-run=client", "-o", "json"),
            *(f"--docker-server={host}", f"--docker-username={login['username']}"),
            f"--docker-password={login['password']}",
        )
        assert json.loads(login_in(json.loads(made.stdout))) == json.loads(logins)

        (podman.folder / "auth.json").write_text(logins)
        podman("pull", "--tls-verify=false", saved.reference)
        podman("image", "rm", saved.reference)
        hosts = tmp_path / f"hosts-{len(arguments)}"
        write_hosts(hosts, tls_server)
        containerd.pull(
            saved.reference, hosts=hosts, user=f"{login['username']}:{login['password']}"
        )
        containerd("images", "rm", saved.reference)


def test_the_objects_of_the_documentation_are_what_kubectl_reads(kube: Kubectl) -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    # The kubelet's own configuration is no object of a cluster.
    objects = [
        block for block in blocks if "kind:" in block and "kubelet.config.k8s.io" not in block
    ]
    read = kube(
        *("annotate", "--local", "-f", "-", "a=b", "-o", "name"), stdin="---\n".join(objects)
    )
    assert read.stdout.splitlines() == [
        "deployment.apps/web",
        "clusterrole.rbac.authorization.k8s.io/layover-image-pulls",
        "clusterrolebinding.rbac.authorization.k8s.io/layover-image-pulls",
    ]


@pytest.fixture
def cluster(tls_server: LayoverServer, tls_provider: OidcProvider) -> Iterator[Issuer]:
    """A cluster's issuer, whose service account `web` in `web` the project trusts."""
    issuer = tls_provider.issuer("cluster")
    added = tls_server.cli(
        *("projects", "trust", "add", "kubernetes", "namespace=web", "service-account=web"),
        *("--issuer", issuer.url, "--grant", "pull", "--output", "json"),
    )
    (policy,) = json.loads(added.stdout)
    yield issuer
    tls_server.cli("projects", "trust", "rm", policy["id"])


def provide(
    server: LayoverServer, home: Path, image: str, token: str
) -> "subprocess.CompletedProcess[str]":
    """Run the provider as a kubelet does, on a node that has nothing but the configuration."""
    assert server.certificates is not None
    request = {
        "kind": "CredentialProviderRequest",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "image": image,
        "serviceAccountToken": token,
    }
    return run(
        [LAYOVER, "kubelet-credential-provider", "--url", server.url],
        env=environment(home, SSL_CERT_FILE=str(server.certificates.ca)),
        stdin=json.dumps(request),
        check=False,
    )


def pod_token(issuer: Issuer, server: LayoverServer, account: str, **claims: Any) -> str:
    """A service account's token as a kubelet requests it."""
    namespace, name = account.split(":")
    about = {"namespace": namespace, "serviceaccount": {"name": name, "uid": "1"}}
    subject = f"system:serviceaccount:{account}"
    return issuer.sign({"aud": [server.url], "sub": subject, "kubernetes.io": about, **claims})


def test_a_pods_service_account_is_traded_for_a_token_that_pulls_its_image_and_no_more(
    tls_server: LayoverServer,
    containerd: Containerd,
    cluster: Issuer,
    saved: SavedBuild,
    tmp_path: Path,
) -> None:
    # A kubelet leaves the tag out.
    image = saved.reference.rpartition(":")[0]
    done = provide(tls_server, tmp_path, image, pod_token(cluster, tls_server, "web:web"))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["apiVersion"], answer["kind"], answer["cacheKeyType"]) == (
        "credentialprovider.kubelet.k8s.io/v1",
        "CredentialProviderResponse",
        "Image",
    )
    assert 0 < int(answer["cacheDuration"].removesuffix("s")) < 3600
    ((matched, login),) = answer["auth"].items()
    assert matched == image
    assert login["username"] == "x-token"
    write_hosts(tmp_path / "hosts", tls_server)
    containerd.pull(saved.reference, hosts=tmp_path / "hosts", user=f"x-token:{login['password']}")
    containerd("images", "rm", saved.reference)
    pushed = tls_server.request(
        "POST",
        f"/v2/{tls_server.project_id}/blobs/uploads/",
        headers={"Authorization": f"Bearer {login['password']}"},
        authenticate=False,
    )
    assert pushed.status == 403


def test_a_service_account_that_is_not_meant_gets_nothing(
    tls_server: LayoverServer, cluster: Issuer, saved: SavedBuild, tmp_path: Path
) -> None:
    image = saved.reference.rpartition(":")[0]
    for token in (
        pod_token(cluster, tls_server, "web:other"),
        pod_token(cluster, tls_server, "web:web", aud=["https://other.example.com"]),
        cluster.sign(
            {"aud": tls_server.url, "sub": "system:serviceaccount:web:web"}, key="foreign"
        ),
    ):
        done = provide(tls_server, tmp_path, image, token)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no pull token of project" in done.stderr
        assert token not in done.stderr
    trusted = pod_token(cluster, tls_server, "web:web")
    for other in (f"{tls_server.host}/aaaaaaaaaa", f"evil.example/{tls_server.project_id}"):
        done = provide(tls_server, tmp_path, other, trusted)
        assert (done.returncode, done.stdout) == (1, "")
