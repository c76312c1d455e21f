package main

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

// One way to log in, and the vault whose secret `password` shows that it worked.
type login struct {
	Name string `json:"name"`
	// secret, certificate, workload, system, client, object, resource or default.
	Kind   string `json:"kind"`
	Tenant string `json:"tenant"`
	// The application, or the id that names a managed identity.
	ID string `json:"id"`
	// The client secret, or the password of the certificate.
	Secret string `json:"secret"`
	// The certificate, or the token of the service account.
	File string `json:"file"`
	// The login host of another cloud, as a URL.
	Authority string `json:"authority"`
	// Disables the request by which the SDK asks Entra ID whether it knows the login host.
	Disconnected bool   `json:"disconnected"`
	Vault        string `json:"vault"`
}

func (l login) options(client *http.Client) azcore.ClientOptions {
	options := azcore.ClientOptions{Transport: client, Retry: policy.RetryOptions{MaxRetries: -1}}
	if l.Authority != "" {
		options.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: l.Authority}
	}
	return options
}

func (l login) credential(client *http.Client) (azcore.TokenCredential, error) {
	options := l.options(client)
	switch l.Kind {
	case "secret":
		return azidentity.NewClientSecretCredential(l.Tenant, l.ID, l.Secret, &azidentity.ClientSecretCredentialOptions{
			ClientOptions: options, DisableInstanceDiscovery: l.Disconnected,
		})
	case "certificate":
		data, err := os.ReadFile(l.File)
		if err != nil {
			return nil, err
		}
		certificates, key, err := azidentity.ParseCertificates(data, []byte(l.Secret))
		if err != nil {
			return nil, err
		}
		return azidentity.NewClientCertificateCredential(l.Tenant, l.ID, certificates, key, &azidentity.ClientCertificateCredentialOptions{
			ClientOptions: options, DisableInstanceDiscovery: l.Disconnected,
		})
	case "workload":
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: options, DisableInstanceDiscovery: l.Disconnected,
			ClientID: l.ID, TenantID: l.Tenant, TokenFilePath: l.File,
		})
	case "default":
		return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: options})
	}
	managed := azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
	switch l.Kind {
	case "system":
	case "client":
		managed.ID = azidentity.ClientID(l.ID)
	case "object":
		managed.ID = azidentity.ObjectID(l.ID)
	case "resource":
		managed.ID = azidentity.ResourceID(l.ID)
	default:
		return nil, fmt.Errorf("unknown kind of login %q", l.Kind)
	}
	return azidentity.NewManagedIdentityCredential(&managed)
}

func (l login) readSecret(ctx context.Context, client *http.Client) (string, error) {
	credential, err := l.credential(client)
	if err != nil {
		return "", err
	}
	secrets, err := azsecrets.NewClient(l.Vault, credential, &azsecrets.ClientOptions{ClientOptions: l.options(client)})
	if err != nil {
		return "", err
	}
	secret, err := secrets.GetSecret(ctx, "password", "", nil)
	if err != nil {
		return "", err
	}
	return *secret.Value, nil
}
