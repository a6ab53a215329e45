"""What Kubernetes reads: a Secret that pulls images, and the kubelet's credential provider API.

The provider API is `credentialprovider.kubelet.k8s.io/v1`: a CredentialProviderRequest comes in,
a CredentialProviderResponse goes out, both JSON.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from layover.client.address import parse_token
from layover.client.errors import ClientError
from layover.client.references import Image, is_id
from layover.client.registry_logins import USER_NAME
from layover.errors import LayoverError

PROVIDER_API = "credentialprovider.kubelet.k8s.io/v1"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_LONGEST_LABEL, _LONGEST_SUBDOMAIN = 63, 253

# A node's clock and the server's may be apart; what is left is shared out with some to spare.
_CLOCK_SKEW = timedelta(minutes=1)


class NameInvalid(ClientError):
    """The text is not a name that Kubernetes gives to such an object."""

    def __init__(self, what: str, text: str, rule: str) -> None:
        super().__init__(f"{text[:300]!r} is not {what}'s name: {rule}")
        self.text = text


class ProviderRequestInvalid(ClientError):
    """What the kubelet sent is not what its configuration should make it send."""


def check_secret_name(name: str) -> None:
    """Raise NameInvalid unless it is a DNS subdomain of RFC 1123."""
    if len(name) > _LONGEST_SUBDOMAIN or not all(
        len(part) <= _LONGEST_LABEL and _LABEL.fullmatch(part) for part in name.split(".")
    ):
        raise NameInvalid(
            "a secret",
            name,
            "lower-case letters, digits, '-' and '.', each part with a letter or a digit at its"
            f" ends and {_LONGEST_LABEL} characters at most, {_LONGEST_SUBDOMAIN} as a whole",
        )


def check_namespace(name: str) -> None:
    """Raise NameInvalid unless it is a DNS label of RFC 1123."""
    if len(name) > _LONGEST_LABEL or not _LABEL.fullmatch(name):
        raise NameInvalid(
            "a namespace",
            name,
            "lower-case letters, digits and '-', a letter or a digit at its ends,"
            f" {_LONGEST_LABEL} characters at most",
        )


def docker_config_json(host: str, token: str) -> str:
    """A registry's login as Docker, podman and Kubernetes read it from a file."""
    auth = base64.b64encode(f"{USER_NAME}:{token}".encode()).decode()
    login = {"username": USER_NAME, "password": token, "auth": auth}
    return json.dumps({"auths": {host: login}})


def pull_secret(
    name: str, namespace: str | None, host: str, token: str, annotations: Mapping[str, str]
) -> dict[str, Any]:
    """A Secret that pulls from the registry at `host`."""
    metadata: dict[str, Any] = {"name": name}
    if namespace is not None:
        metadata["namespace"] = namespace
    metadata["labels"] = {"app.kubernetes.io/managed-by": "layover"}
    metadata["annotations"] = dict(annotations)
    content = base64.b64encode(docker_config_json(host, token).encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": content},
    }


def as_yaml(value: Mapping[str, Any], indent: str = "") -> str:
    """Objects of objects and texts as YAML. Every text is quoted: `true` and `1e3` stay texts."""
    lines = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            lines.append(f"{indent}{key}:\n{as_yaml(item, indent + '  ')}")
        else:
            lines.append(f"{indent}{key}: {json.dumps(item)}\n")
    return "".join(lines)


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """What a kubelet asks: how to pull an image, for a pod of a service account."""

    image: Image
    token: str = field(repr=False)

    @property
    def project_id(self) -> str:
        return self.image.project_id


def read_provider_request(content: bytes) -> ProviderRequest:
    """Parse a CredentialProviderRequest. Raises ProviderRequestInvalid, which quotes no token."""
    try:
        value: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise ProviderRequestInvalid(
            "standard input is not a JSON object of the kubelet's"
        ) from None
    if not isinstance(value, dict):
        raise ProviderRequestInvalid("standard input is not a JSON object of the kubelet's")
    version, kind = value.get("apiVersion"), value.get("kind")
    if version != PROVIDER_API or kind != "CredentialProviderRequest":
        raise ProviderRequestInvalid(
            f"expected a CredentialProviderRequest of {PROVIDER_API}, not"
            f" {_shown(kind)} of {_shown(version)}: the kubelet's CredentialProviderConfig says"
            " which in `apiVersion`"
        )
    text, token = value.get("image"), value.get("serviceAccountToken")
    if not isinstance(text, str) or not text:
        raise ProviderRequestInvalid("the request names no image")
    if token is None or token == "":
        raise ProviderRequestInvalid(
            "the request has no service account's token: the kubelet's CredentialProviderConfig"
            " has to have `tokenAttributes` with `serviceAccountTokenAudience` and"
            " `requireServiceAccount: true`"
        )
    try:
        image = Image.parse(text)
        parsed = parse_token(token if isinstance(token, str) else " ")
    except LayoverError as error:
        raise ProviderRequestInvalid(str(error)) from None
    if parsed.count(".") != 2:
        raise ProviderRequestInvalid("the service account's token is none")
    if not image.host or not is_id(image.project_id):
        raise ProviderRequestInvalid(
            f"{text[:300]!r} is no image of Layover's, which is HOST/PROJECT_ID with or without"
            " more: check `matchImages` in the kubelet's CredentialProviderConfig"
        )
    return ProviderRequest(image, parsed)


def provider_response(
    request: ProviderRequest, token: str, cached_for: timedelta
) -> dict[str, Any]:
    """The CredentialProviderResponse that pulls the image.

    The token is good for one project and was traded for one service account's. The kubelet keeps
    what it got by the key type named here and, given tokens of service accounts, by the account
    or its token as well; `Registry` or `Global` would have it answer for another project with
    this one's token.
    """
    login = {"username": USER_NAME, "password": token}
    return {
        "apiVersion": PROVIDER_API,
        "kind": "CredentialProviderResponse",
        "cacheKeyType": "Image",
        "cacheDuration": f"{int(cached_for.total_seconds())}s",
        "auth": {f"{request.image.host}/{request.project_id}": login},
    }


def cache_duration(expires_at: datetime, now: datetime) -> timedelta:
    """How long a kubelet may keep a token: a pull that it is for has to end before the token does.

    Zero, which is not at all, for one that is about to end.
    """
    left = expires_at - now - _CLOCK_SKEW
    return max(left * 0.75, timedelta())


def claims_of(token: str) -> str:
    """Whose ID token it is and whom it is for, as far as it says, for a message.

    Nothing of it was verified, and nothing is secret: the signature is left out.
    """
    payload = token.split(".")[1]
    try:
        value = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return "no claims that can be read"
    if not isinstance(value, dict):
        return "no claims that can be read"
    audience = value.get("aud")
    if isinstance(audience, list) and len(audience) == 1:
        audience = audience[0]
    return (
        f"issuer {_shown(value.get('iss'))}, audience {_shown(audience)},"
        f" subject {_shown(value.get('sub'))}"
    )


def _shown(value: object) -> str:
    """A claim or field of somebody else's, on one line and of a bounded length."""
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(character if character.isprintable() else "?" for character in text[:200])
