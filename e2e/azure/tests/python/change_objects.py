"""Changes and reads keys and certificates with Microsoft's SDKs for Python.

Usage: change_objects.py TENANT VAULT APPLICATION
The current folder has `assertion` (a service account's token), `client.pem` (the application's key
and certificate), `cert.pfx`, `cert.pem` (key and certificate) and `cert.der`. The application and
the machine's identity have all permissions in VAULT.
"""

import json
import sys
from pathlib import Path

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import CertificateCredential, ClientAssertionCredential, ManagedIdentityCredential
from azure.keyvault.certificates import CertificateClient, CertificateContentType, CertificatePolicy
from azure.keyvault.keys import JsonWebKey, KeyClient, KeyType
from azure.keyvault.secrets import SecretClient

tenant, vault, application = sys.argv[1:]
url = f"https://{vault}.vault.azure.net"


def expect(error, action, *texts):
    """The action must raise the error, with these texts in it."""
    try:
        action()
    except error as raised:
        for text in texts:
            assert text in str(raised), f"{text!r} is missing in {raised}"
        return raised
    raise AssertionError(f"no {error.__name__}")


assertion = Path("assertion").read_text()
by_token = ClientAssertionCredential(tenant, application, lambda: assertion)
by_certificate = CertificateCredential(tenant, application, "client.pem")
by_machine = ManagedIdentityCredential()

# Keys.
keys = KeyClient(url, by_token)
number = bytes(range(1, 129)) * 2
first = keys.import_key("main", JsonWebKey(kty="RSA", n=number, e=b"\1\0\1", key_ops=["sign"]))
assert first.key_type == KeyType.rsa and first.key.n == number and first.id.endswith(first.properties.version)
versions = {first.properties.version}
for count in range(4):
    point = JsonWebKey(kty="EC", crv="P-256", x=bytes([count + 1]) * 32, y=bytes(32), key_ops=["verify"])
    versions.add(keys.import_key("main", point, tags={"count": str(count)}).properties.version)
assert keys.get_key("main").key.crv == "P-256"
assert keys.get_key("main", first.properties.version).key.n == number
history = list(keys.list_properties_of_key_versions("main"))
assert {item.version for item in history} == versions and all(item.enabled and item.created_on for item in history)
assert [item.name for item in keys.list_properties_of_keys()] == ["main"]
disabled = keys.update_key_properties("main", first.properties.version, enabled=False)
assert disabled.properties.enabled is False
expect(ResourceNotFoundError, lambda: keys.get_key("missing"), "KeyNotFound")
expect(HttpResponseError, lambda: keys.create_rsa_key("new"), "NotImplemented")

# Certificates.
certificates = CertificateClient(url, by_certificate)
pfx = Path("cert.pfx").read_bytes()
der = Path("cert.der").read_bytes()
imported = certificates.import_certificate("web", pfx, password="pass")
assert imported.cer == der and imported.policy.content_type == CertificateContentType.pkcs12
pem = Path("cert.pem").read_bytes()
policy = CertificatePolicy(issuer_name="Unknown", content_type=CertificateContentType.pem)
second = certificates.import_certificate("web", pem, policy=policy, tags={"team": "blue"})
assert second.policy.content_type == CertificateContentType.pem and second.properties.tags == {"team": "blue"}
newest = certificates.get_certificate("web")
assert newest.properties.version == second.properties.version and newest.key_id.endswith(second.properties.version)
old = certificates.get_certificate_version("web", imported.properties.version)
assert old.cer == der and old.properties.x509_thumbprint == newest.properties.x509_thumbprint
history = {item.version for item in certificates.list_properties_of_certificate_versions("web")}
assert history == {imported.properties.version, second.properties.version}
assert [item.name for item in certificates.list_properties_of_certificates()] == ["web"]
changed = certificates.update_certificate_properties("web", imported.properties.version, enabled=False)
assert changed.properties.enabled is False
expect(ResourceNotFoundError, lambda: certificates.get_certificate("missing"), "CertificateNotFound")
expect(HttpResponseError, lambda: certificates.import_certificate("web", pfx, password="wrong"), "BadParameter")

# The same certificate as a secret, for the machine's identity.
secrets = SecretClient(url, by_machine)
secret = secrets.get_secret("web")
assert secret.value.encode() == pem and secret.properties.key_id == newest.key_id and secret.properties.managed
assert secret.properties.content_type == "application/x-pem-file"
error = expect(HttpResponseError, lambda: secrets.get_secret("web", imported.properties.version), "disabled secret")
assert error.status_code == 403

# Refusals.
forged = ClientAssertionCredential(tenant, application, lambda: assertion[:-8] + "AAAAAAAA")
expect(ClientAuthenticationError, lambda: forged.get_token("https://vault.azure.net/.default"), "AADSTS50013")
unknown = ManagedIdentityCredential(client_id="unknown")
expect(ClientAuthenticationError, lambda: unknown.get_token("https://vault.azure.net/.default"), "Identity not found")
print(json.dumps("done"))
