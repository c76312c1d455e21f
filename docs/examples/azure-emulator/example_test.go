package example

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

func admin(t *testing.T, method, path, body string) string {
	request, err := http.NewRequest(method, "http://127.0.0.1:8440"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		t.Fatal(answer.Status, err, string(text))
	}
	return string(text)
}

func TestThrottledReadIsRepeated(t *testing.T) {
	admin(t, "PUT", "/vaults/demo-vault/secrets/password", `{"value": "changed"}`)
	admin(t, "POST", "/faults", `{"host": "demo-vault", "kind": "get", "times": 1,
		"action": {"type": "status", "status": 429, "retry_after": "1"}}`)
	credential, err := azidentity.NewClientSecretCredential("contoso.example", "my-app", "pass", nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := azsecrets.NewClient("https://demo-vault.vault.azure.net", credential, nil)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := client.GetSecret(context.Background(), "password", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if *secret.Value != "changed" {
		t.Fatal(*secret.Value)
	}
	if counters := admin(t, "GET", "/counters/demo-vault", ""); !strings.Contains(counters, `"get":2`) {
		t.Fatal(counters)
	}
}
