// Every way of logging in with Microsoft's SDK for JavaScript, and every refusal.
//
// Reads setup.json and the files of the current folder; prints the versions of the SDKs and a list
// of names and outcomes, each the value of a secret or the code of the error.

import { readFileSync } from "node:fs";

import {
  AzureAuthorityHosts,
  ClientAssertionCredential,
  ClientCertificateCredential,
  ClientSecretCredential,
  DefaultAzureCredential,
  ManagedIdentityCredential,
  WorkloadIdentityCredential,
} from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

import { versions } from "./versions.mjs";

const text = (name) => readFileSync(name, "utf8");
const setup = JSON.parse(text("setup.json"));
const { tenant, secret, applications: app } = setup;
const [vault, otherVault, govVault, stackVault, adfsVault] = setup.vaults;
const STACK = { authorityHost: "https://login.stack.test", disableInstanceDiscovery: true };
const SCOPE = "https://vault.azure.net/.default";
const outcomes = [];

// The part of an error's text that names its cause.
function code(error) {
  const known = /AADSTS[0-9]+|Identity not found|not configured to acquire tokens for tenant|Forbidden/;
  // Key Vault's code stands in `code`, and its text in `message`.
  const found = `${error.code} ${error.message}`.match(known);
  return found ? found[0] : `${error.name}: ${error.message}`;
}

async function outcome(name, action) {
  try {
    outcomes.push([name, await action()]);
  } catch (error) {
    outcomes.push([name, code(error)]);
  }
}

// Reads a secret as this credential.
function login(name, credential, url = vault) {
  return outcome(name, async () => (await new SecretClient(url, credential()).getSecret("greeting")).value);
}

// Sets variables for the credentials that read them.
async function environment(variables, action) {
  Object.assign(process.env, variables);
  await action();
  for (const name of Object.keys(variables)) {
    delete process.env[name];
  }
}

const bySecret = (options = {}, application = app[1], inTenant = tenant, clientSecret = secret) => () =>
  new ClientSecretCredential(inTenant, application, clientSecret, options);
const byCertificate = (file) => () => new ClientCertificateCredential(tenant, app[2], { certificatePath: file });
const byAssertion = (file) => () => new ClientAssertionCredential(tenant, app[4], async () => text(file));
const byIdentity = (options) => () => new ManagedIdentityCredential(options);
const byDefault = () => new DefaultAzureCredential();

await login("client secret", bySecret());
await login("certificate, PEM", byCertificate("client.pem"));
await login("assertion", byAssertion("assertion"));
const workload = { tenantId: tenant, clientId: app[4], tokenFilePath: "assertion" };
await login("workload identity", () => new WorkloadIdentityCredential(workload));
const secretVariables = { AZURE_TENANT_ID: tenant, AZURE_CLIENT_ID: app[1], AZURE_CLIENT_SECRET: secret };
await environment(secretVariables, () => login("default: secret in the environment", byDefault));
const tokenVariables = { AZURE_TENANT_ID: tenant, AZURE_CLIENT_ID: app[4], AZURE_FEDERATED_TOKEN_FILE: "assertion" };
await environment(tokenVariables, () => login("default: workload identity in the environment", byDefault));
await login("default: managed identity", byDefault);
await login("managed identity, system-assigned", byIdentity());
await login("managed identity, client id", byIdentity({ clientId: app[6] }));
await login("managed identity, object id", byIdentity({ objectId: setup.object_id }));
await login("managed identity, resource id", byIdentity({ resourceId: setup.resource_id }));
const proxy = {
  AZURE_KUBERNETES_TOKEN_PROXY: setup.token_proxy,
  AZURE_KUBERNETES_SNI_NAME: setup.token_proxy_name,
  AZURE_KUBERNETES_CA_FILE: "cluster-ca.pem",
};
const binding = { tenantId: tenant, clientId: app[8], tokenFilePath: "binding", enableAzureProxy: true };
await environment(proxy, () => login("identity binding", () => new WorkloadIdentityCredential(binding)));
await login("tenant of the challenge", bySecret({ additionallyAllowedTenants: ["*"] }), otherVault);
await login("US government", bySecret({ authorityHost: AzureAuthorityHosts.AzureGovernment }), govVault);
await login("custom cloud", bySecret(STACK), stackVault);
await login("AD FS", bySecret(STACK, app[1], "adfs"), adfsVault);

await login("wrong secret", bySecret({}, app[1], tenant, "not the secret"));
await login("expired secret", bySecret({}, app[9]));
await login("unknown application", bySecret({}, app[0]));
await outcome("unknown tenant", () => bySecret({}, app[1], app[0])().getToken(SCOPE));
await login("unknown certificate", byCertificate("unknown.pem"));
await login("forged assertion", byAssertion("forged"));
await login("assertion of another subject", byAssertion("other-subject"));
await login("unknown managed identity", byIdentity({ clientId: app[0] }));
await login("tenant of the challenge is not allowed", bySecret(), otherVault);
await login("no permission", bySecret({}, app[10]));
await login("another cloud", bySecret(), govVault);

console.log(JSON.stringify({ versions: versions("identity", "keyvault-secrets"), logins: outcomes }));
