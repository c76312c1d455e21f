// Reads a whole vault with Microsoft's SDKs: every page of each list, and every version.
//
// Reads setup.json in the current folder; prints the versions of the SDKs, pages and versions. Times
// are Unix seconds, numbers of keys are base64url.

import { deepStrictEqual } from "node:assert";
import { readFileSync } from "node:fs";

import { ClientSecretCredential } from "@azure/identity";
import { CertificateClient } from "@azure/keyvault-certificates";
import { KeyClient } from "@azure/keyvault-keys";
import { SecretClient } from "@azure/keyvault-secrets";

import { versions } from "./versions.mjs";

const setup = JSON.parse(readFileSync("setup.json", "utf8"));
const credential = new ClientSecretCredential(setup.tenant, setup.client, setup.secret);
const secrets = new SecretClient(setup.vault, credential);
const keys = new KeyClient(setup.vault, credential);
const certificates = new CertificateClient(setup.vault, credential);

const seconds = (time) => (time === undefined ? null : time.getTime() / 1000);
const base64url = (bytes) => Buffer.from(bytes).toString("base64url");

// What all kinds report of a version.
function common(properties) {
  return {
    id: properties.id,
    enabled: properties.enabled,
    created: seconds(properties.createdOn),
    updated: seconds(properties.updatedOn),
    not_before: seconds(properties.notBefore),
    expires: seconds(properties.expiresOn),
    tags: properties.tags,
    managed: properties.managed ?? false,
    recovery: properties.recoveryLevel,
  };
}

async function secret(name, item) {
  const found = { ...common(item), content_type: item.contentType };
  try {
    const bundle = await secrets.getSecret(name, { version: item.version });
    deepStrictEqual({ ...common(bundle.properties), content_type: bundle.properties.contentType }, found);
    return { ...found, value: bundle.value, key_id: bundle.properties.certificateKeyId ?? null };
  } catch (error) {
    if (error.statusCode === undefined) {
      throw error;
    }
    return { ...found, refused: error.statusCode };
  }
}

async function key(name, item) {
  const bundle = await keys.getKey(name, { version: item.version });
  deepStrictEqual(common(bundle.properties), common(item));
  const jwk = { kty: bundle.keyType, key_ops: bundle.keyOperations };
  for (const number of ["n", "e", "x", "y"]) {
    if (bundle.key[number] !== undefined) {
      jwk[number] = base64url(bundle.key[number]);
    }
  }
  if (bundle.key.crv !== undefined) {
    jwk.crv = bundle.key.crv;
  }
  return { ...common(item), key: jwk };
}

async function certificate(name, item) {
  const bundle = await certificates.getCertificateVersion(name, item.version);
  deepStrictEqual(common(bundle.properties), common(item));
  deepStrictEqual(bundle.properties.x509Thumbprint, item.x509Thumbprint);
  return {
    ...common(item),
    cer: Buffer.from(bundle.cer).toString("base64"),
    thumbprint: base64url(item.x509Thumbprint),
    key_id: bundle.keyId,
    secret_id: bundle.secretId,
  };
}

async function pages(listed) {
  return Array.fromAsync(listed.byPage());
}

// All pages, all versions, each version, and the newest one of each object.
async function report(listed, listVersions, read, newest) {
  const names = (await pages(listed)).map((page) => page.map((item) => item.name));
  const result = { pages: names, version_pages: {}, versions: [], newest: {} };
  for (const name of names.flat()) {
    const found = await pages(listVersions(name));
    result.version_pages[name] = found.map((page) => page.map((item) => item.id));
    for (const item of found.flat()) {
      result.versions.push(await read(name, item));
    }
    result.newest[name] = await newest(name);
  }
  return result;
}

const contentTypes = {};
const result = {
  secrets: await report(
    secrets.listPropertiesOfSecrets(),
    (name) => secrets.listPropertiesOfSecretVersions(name),
    secret,
    async (name) => (await secrets.getSecret(name)).properties.id,
  ),
  keys: await report(
    keys.listPropertiesOfKeys(),
    (name) => keys.listPropertiesOfKeyVersions(name),
    key,
    async (name) => (await keys.getKey(name)).properties.id,
  ),
  certificates: await report(
    certificates.listPropertiesOfCertificates(),
    (name) => certificates.listPropertiesOfCertificateVersions(name),
    certificate,
    async (name) => {
      const found = await certificates.getCertificate(name);
      contentTypes[name] = found.policy.contentType;
      return found.properties.id;
    },
  ),
  content_types: contentTypes,
  deleted_secrets: (await pages(secrets.listDeletedSecrets())).map((page) => page.map((item) => item.name)),
};
const packages = ["identity", "keyvault-secrets", "keyvault-keys", "keyvault-certificates"];
console.log(JSON.stringify({ versions: versions(...packages), ...result }));
