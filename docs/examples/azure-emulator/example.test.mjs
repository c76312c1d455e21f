import assert from "node:assert";
import test from "node:test";

import { ClientSecretCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";

async function admin(method, path, body) {
  const answer = await fetch("http://127.0.0.1:8440" + path, { method, body: JSON.stringify(body) });
  assert(answer.ok, await answer.clone().text());
  return answer.status === 204 ? undefined : answer.json();
}

test("a throttled read is repeated", async () => {
  await admin("PUT", "/vaults/demo-vault/secrets/password", { value: "changed" });
  const action = { type: "status", status: 429, retry_after: "1" };
  await admin("POST", "/faults", { host: "demo-vault", kind: "get", times: 1, action });
  const credential = new ClientSecretCredential("contoso.example", "my-app", "pass");
  const client = new SecretClient("https://demo-vault.vault.azure.net", credential);
  assert.equal((await client.getSecret("password")).value, "changed");
  assert.equal((await admin("GET", "/counters/demo-vault")).counters.get, 2);
});
