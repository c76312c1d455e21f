"""Reads a whole vault with Microsoft's SDKs: every page of each list, and every version.

Reads setup.json in the current folder; prints the versions of the SDKs, pages and versions. Times
are Unix seconds, numbers of keys are base64url.
"""

import base64
import json
from importlib.metadata import version

from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.keyvault.certificates import CertificateClient
from azure.keyvault.keys import KeyClient
from azure.keyvault.secrets import SecretClient

with open("setup.json", encoding="utf-8") as file:
    setup = json.load(file)
credential = ClientSecretCredential(setup["tenant"], setup["client"], setup["secret"])
secrets, keys, certificates = (client(setup["vault"], credential) for client in (SecretClient, KeyClient, CertificateClient))
content_types = {}


def seconds(time):
    return None if time is None else int(time.timestamp())


def base64url(number):
    return base64.urlsafe_b64encode(number).rstrip(b"=").decode()


def common(properties):
    """What all kinds report of a version."""
    return {
        "id": properties.id,
        "enabled": properties.enabled,
        "created": seconds(properties.created_on),
        "updated": seconds(properties.updated_on),
        "not_before": seconds(properties.not_before),
        "expires": seconds(properties.expires_on),
        "tags": properties.tags,
        "managed": bool(getattr(properties, "managed", False)),
        "recovery": properties.recovery_level,
    }


def secret(name, item):
    found = {**common(item), "content_type": item.content_type}
    try:
        bundle = secrets.get_secret(name, item.version)
    except HttpResponseError as error:
        return {**found, "refused": error.status_code}
    assert found == {**common(bundle.properties), "content_type": bundle.properties.content_type}
    return {**found, "value": bundle.value, "key_id": bundle.properties.key_id}


def key(name, item):
    bundle = keys.get_key(name, item.version)
    assert common(item) == common(bundle.properties) and bundle.id == item.id
    jwk = {"kty": bundle.key_type, "key_ops": bundle.key_operations}
    for number in ("n", "e", "x", "y"):
        value = getattr(bundle.key, number)
        jwk.update({} if value is None else {number: base64url(value)})
    if bundle.key.crv:
        jwk["crv"] = bundle.key.crv
    return {**common(item), "key": jwk}


def certificate(name, item):
    bundle = certificates.get_certificate_version(name, item.version)
    assert common(item) == common(bundle.properties) and item.x509_thumbprint == bundle.properties.x509_thumbprint
    return {
        **common(item),
        "cer": base64.b64encode(bundle.cer).decode(),
        "thumbprint": base64url(item.x509_thumbprint),
        "key_id": bundle.key_id,
        "secret_id": bundle.secret_id,
    }


def newest_certificate(name):
    bundle = certificates.get_certificate(name)
    content_types[name] = bundle.policy.content_type
    return bundle.id


def pages(listed):
    return [list(page) for page in listed.by_page()]


def report(listed, list_versions, read, newest):
    """All pages, all versions, each version, and the newest one of each object."""
    names = [[item.name for item in page] for page in pages(listed)]
    versions = {name: pages(list_versions(name)) for page in names for name in page}
    return {
        "pages": names,
        "version_pages": {name: [[item.id for item in page] for page in found] for name, found in versions.items()},
        "versions": [read(name, item) for name, found in versions.items() for page in found for item in page],
        "newest": {name: newest(name) for name in versions},
    }


result = {
    "secrets": report(
        secrets.list_properties_of_secrets(),
        secrets.list_properties_of_secret_versions,
        secret,
        lambda name: secrets.get_secret(name).id,
    ),
    "keys": report(
        keys.list_properties_of_keys(),
        keys.list_properties_of_key_versions,
        key,
        lambda name: keys.get_key(name).id,
    ),
    "certificates": report(
        certificates.list_properties_of_certificates(),
        certificates.list_properties_of_certificate_versions,
        certificate,
        newest_certificate,
    ),
    "content_types": content_types,
    "deleted_secrets": [[item.name for item in page] for page in pages(secrets.list_deleted_secrets())],
}
packages = ["azure-core", "azure-identity", "azure-keyvault-secrets", "azure-keyvault-keys", "azure-keyvault-certificates"]
print(json.dumps({"versions": {name: version(name) for name in packages}, **result}))
