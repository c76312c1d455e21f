"""Changes and reads secrets with Microsoft's SDK for Python.

Usage: change_secrets.py TENANT CLIENT SECRET VAULT OTHER_VAULT
The client has all permissions in VAULT, and only that to list in OTHER_VAULT.
"""

import json
import sys
from datetime import datetime, timezone

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient

tenant, client_id, secret, vault, other_vault = sys.argv[1:]


def expect(error, action, *texts):
    """The action must raise the error, with these texts in it."""
    try:
        action()
    except error as raised:
        for text in texts:
            assert text in str(raised), f"{text!r} is missing in {raised}"
        return raised
    raise AssertionError(f"no {error.__name__}")


def client_for(name, client_secret=secret):
    credential = ClientSecretCredential(tenant, client_id, client_secret)
    return SecretClient(f"https://{name}.vault.azure.net", credential)


secrets = client_for(vault)

# Set and get.
expiry = datetime(2040, 1, 1, tzinfo=timezone.utc)
first = secrets.set_secret("main", "one", content_type="text/plain", tags={"a": "b"}, expires_on=expiry)
got = secrets.get_secret("main")
assert (got.value, got.id, got.name) == ("one", first.id, "main")
properties = got.properties
assert (properties.content_type, properties.tags, properties.expires_on) == ("text/plain", {"a": "b"}, expiry)
assert properties.enabled and properties.recovery_level == "Recoverable+Purgeable"
assert properties.vault_url == f"https://{vault}.vault.azure.net"

# Versions, in two pages of three.
history = [first] + [secrets.set_secret("main", f"value {number}") for number in range(3)]
versions = {item.version for item in secrets.list_properties_of_secret_versions("main")}
assert versions == {item.properties.version for item in history}, versions
assert secrets.get_secret("main", first.properties.version).value == "one"
assert secrets.get_secret("main").value == "value 2"

# Names, in three pages of three.
for number in range(8):
    secrets.set_secret(f"thing-{number}", "x")
names = [item.name for item in secrets.list_properties_of_secrets()]
assert names == ["main"] + [f"thing-{number}" for number in range(8)], names

# Update: a disabled secret cannot be read.
newest = secrets.get_secret("main").properties.version
changed = secrets.update_secret_properties("main", newest, enabled=False, content_type="new")
assert not changed.enabled and changed.content_type == "new" and changed.version == newest
error = expect(HttpResponseError, lambda: secrets.get_secret("main"), "disabled secret")
assert error.status_code == 403 and error.error.innererror["code"] == "SecretDisabled"

# Delete, recover, delete and purge.
poller = secrets.begin_delete_secret("thing-0", _polling_interval=0.1)
assert poller.result().recovery_id.endswith("/deletedsecrets/thing-0")
poller.wait()
expect(ResourceNotFoundError, lambda: secrets.get_secret("thing-0"), "SecretNotFound")
assert [item.name for item in secrets.list_deleted_secrets()] == ["thing-0"]
recovery = secrets.begin_recover_deleted_secret("thing-0", _polling_interval=0.1)
recovery.wait()
assert secrets.get_secret("thing-0").value == "x"
secrets.begin_delete_secret("thing-0", _polling_interval=0.1).wait()
secrets.purge_deleted_secret("thing-0")
expect(ResourceNotFoundError, lambda: secrets.get_deleted_secret("thing-0"))

# Refusals.
error = expect(ResourceNotFoundError, lambda: secrets.get_secret("missing"), "SecretNotFound", "missing")
assert error.status_code == 404
error = expect(HttpResponseError, lambda: client_for(other_vault).get_secret("main"), "does not have secrets get")
assert error.status_code == 403 and error.error.innererror["code"] == "ForbiddenByPolicy"
wrong = client_for(vault, "not the secret")
expect(ClientAuthenticationError, lambda: wrong.get_secret("main"), "AADSTS7000215")
print(json.dumps("done"))
