"""Every way of logging in with Microsoft's SDKs and MSAL, and every refusal.

Reads setup.json and the files of the current folder; prints the versions of the SDKs and a list of
names and outcomes, each the value of a secret or the code of the error.
"""

import json
import os
import re
from contextlib import contextmanager
from importlib.metadata import version

import msal
import requests
from azure.core.exceptions import AzureError
from azure.identity import (
    AzureAuthorityHosts,
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    DefaultAzureCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.keyvault.secrets import SecretClient

with open("setup.json", encoding="utf-8") as file:
    setup = json.load(file)
tenant, secret, app = setup["tenant"], setup["secret"], setup["applications"]
vault, other_vault, gov_vault, stack_vault, adfs_vault = setup["vaults"]
STACK = {"authority": "https://login.stack.test", "disable_instance_discovery": True}
SCOPE = "https://vault.azure.net/.default"
outcomes = []


def text(name):
    with open(name, encoding="utf-8") as file:
        return file.read()


@contextmanager
def environment(**variables):
    """Sets variables for the credentials that read them."""
    os.environ.update(variables)
    yield
    for name in variables:
        del os.environ[name]


def code(error):
    """The part of an error's text that names its cause."""
    known = (
        "AADSTS[0-9]+|Identity not found|not configured to acquire tokens for tenant|Forbidden"
        "|Unable to get authority configuration"
    )
    found = re.search(known, str(error))
    return found.group() if found else f"{type(error).__name__}: {error}"


def login(name, credential, url=vault):
    """Reads a secret as this credential."""
    try:
        with SecretClient(url, credential()) as client:
            outcomes.append((name, client.get_secret("greeting").value))
    except AzureError as error:
        outcomes.append((name, code(error)))


def by_secret(application=app[1], tenant=tenant, client_secret=secret, **options):
    return lambda: ClientSecretCredential(tenant, application, client_secret, **options)


def by_assertion(file):
    return lambda: ClientAssertionCredential(tenant, app[4], lambda: text(file))


def by_identity(**names):
    return lambda: ManagedIdentityCredential(**names)


login("client secret", by_secret())
login("certificate, PEM", lambda: CertificateCredential(tenant, app[2], "client.pem"))
login("certificate, PFX", lambda: CertificateCredential(tenant, app[3], "client.pfx", password=setup["pfx_password"]))
login("assertion", by_assertion("assertion"))
workload = {"tenant_id": tenant, "client_id": app[4], "token_file_path": "assertion"}
login("workload identity", lambda: WorkloadIdentityCredential(**workload))
with environment(AZURE_TENANT_ID=tenant, AZURE_CLIENT_ID=app[1], AZURE_CLIENT_SECRET=secret):
    login("default: secret in the environment", DefaultAzureCredential)
with environment(AZURE_TENANT_ID=tenant, AZURE_CLIENT_ID=app[4], AZURE_FEDERATED_TOKEN_FILE="assertion"):
    login("default: workload identity in the environment", DefaultAzureCredential)
login("default: managed identity", DefaultAzureCredential)
login("managed identity, system-assigned", by_identity())
login("managed identity, client id", by_identity(client_id=app[6]))
login("managed identity, object id", by_identity(identity_config={"object_id": setup["object_id"]}))
login("managed identity, resource id", by_identity(identity_config={"resource_id": setup["resource_id"]}))
proxy = {
    "AZURE_KUBERNETES_TOKEN_PROXY": setup["token_proxy"],
    "AZURE_KUBERNETES_SNI_NAME": setup["token_proxy_name"],
    "AZURE_KUBERNETES_CA_FILE": "cluster-ca.pem",
}
binding = {"tenant_id": tenant, "client_id": app[8], "token_file_path": "binding", "enable_azure_proxy": True}
with environment(**proxy):
    login("identity binding", lambda: WorkloadIdentityCredential(**binding))
login("tenant of the challenge", by_secret(additionally_allowed_tenants=["*"]), other_vault)
login("US government", by_secret(authority=AzureAuthorityHosts.AZURE_GOVERNMENT), gov_vault)
login("custom cloud", by_secret(**STACK), stack_vault)
login("AD FS", by_secret(tenant="adfs", **STACK), adfs_vault)


def read(name, result):
    """Reads a secret with a token that MSAL got."""
    if "access_token" not in result:
        outcomes.append((name, str(result)))
        return
    headers = {"Authorization": f"Bearer {result['access_token']}"}
    answer = requests.get(f"{vault}/secrets/greeting?api-version=7.6", headers=headers, timeout=30)
    outcomes.append((name, answer.json()["value"]))


def confidential(application, credential):
    client = msal.ConfidentialClientApplication(
        application, client_credential=credential, authority=f"https://login.microsoftonline.com/{tenant}"
    )
    return client.acquire_token_for_client([SCOPE])


def managed(identity):
    client = msal.ManagedIdentityClient(identity, http_client=requests.Session())
    return client.acquire_token_for_client(resource="https://vault.azure.net")


pem = text("client.pem")
read("msal: secret", confidential(app[1], secret))
read("msal: PEM", confidential(app[2], {"private_key": pem, "public_certificate": pem}))
by_thumbprint = {"private_key": pem, "thumbprint": setup["pem_thumbprint"]}
read("msal: PEM with thumbprint", confidential(app[2], by_thumbprint))
pfx = {"private_key_pfx_path": "client.pfx", "passphrase": setup["pfx_password"]}
read("msal: PFX", confidential(app[3], pfx))
read("msal: assertion", confidential(app[4], {"client_assertion": text("assertion")}))
read("msal: managed identity, system-assigned", managed(msal.SystemAssignedManagedIdentity()))
read("msal: managed identity, client id", managed(msal.UserAssignedManagedIdentity(client_id=app[6])))
read("msal: managed identity, object id", managed(msal.UserAssignedManagedIdentity(object_id=setup["object_id"])))
named = msal.UserAssignedManagedIdentity(resource_id=setup["resource_id"])
read("msal: managed identity, resource id", managed(named))

login("wrong secret", by_secret(client_secret="not the secret"))
login("expired secret", by_secret(app[9]))
login("unknown application", by_secret(app[0]))
try:
    outcomes.append(("unknown tenant", by_secret(tenant=app[0])().get_token(SCOPE)))
except AzureError as error:
    outcomes.append(("unknown tenant", code(error)))
login("unknown certificate", lambda: CertificateCredential(tenant, app[2], "unknown.pem"))
login("forged assertion", by_assertion("forged"))
login("assertion of another subject", by_assertion("other-subject"))
login("unknown managed identity", by_identity(client_id=app[0]))
login("tenant of the challenge is not allowed", by_secret(), other_vault)
login("no permission", by_secret(app[10]))
login("another cloud", by_secret(), gov_vault)

packages = ["azure-core", "azure-identity", "azure-keyvault-secrets", "msal"]
print(json.dumps({"versions": {name: version(name) for name in packages}, "logins": outcomes}))
