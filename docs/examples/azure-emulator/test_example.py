import json
import unittest
import urllib.request

from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient


def admin(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:8440" + path, data, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or "null")


class Example(unittest.TestCase):
    def test_a_throttled_read_is_repeated(self):
        admin("PUT", "/vaults/demo-vault/secrets/password", {"value": "changed"})
        throttle = {"type": "status", "status": 429, "retry_after": "1"}
        admin("POST", "/faults", {"host": "demo-vault", "kind": "get", "times": 1, "action": throttle})
        credential = ClientSecretCredential("contoso.example", "my-app", "pass")
        client = SecretClient("https://demo-vault.vault.azure.net", credential)
        self.assertEqual(client.get_secret("password").value, "changed")
        self.assertEqual(admin("GET", "/counters/demo-vault")["counters"]["get"], 2)
