package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

// All objects of one kind.
type inventory struct {
	// The names, a list for each page.
	Pages [][]string `json:"pages"`
	// The versions of each name, a list for each page.
	Versions map[string][][]string `json:"versions"`
	// What a request for each version returned, or its error.
	Objects map[string]map[string]any `json:"objects"`
	// The version that a request without one returned, or its error.
	Newest map[string]string `json:"newest"`
}

// How to read one kind of object.
type reader struct {
	names    func() ([][]string, error)
	versions func(name string) ([][]string, error)
	// The version that was returned, and its content. An empty version asks for the newest.
	object func(name, version string) (string, any, error)
}

func (r *report) readVault(ctx context.Context, plan plan, client *http.Client) error {
	first := plan.Logins[0]
	credential, err := first.credential(client)
	if err != nil {
		return err
	}
	options := first.options(client)
	secrets, err := azsecrets.NewClient(plan.Vault, credential, &azsecrets.ClientOptions{ClientOptions: options})
	if err != nil {
		return err
	}
	keys, err := azkeys.NewClient(plan.Vault, credential, &azkeys.ClientOptions{ClientOptions: options})
	if err != nil {
		return err
	}
	certificates, err := azcertificates.NewClient(plan.Vault, credential, &azcertificates.ClientOptions{ClientOptions: options})
	if err != nil {
		return err
	}
	if r.Secrets, err = readAll(secretReader(ctx, secrets)); err != nil {
		return err
	}
	if r.Keys, err = readAll(keyReader(ctx, keys)); err != nil {
		return err
	}
	if r.Certificates, err = readAll(certificateReader(ctx, certificates)); err != nil {
		return err
	}
	r.Deleted, err = listed(ctx, secrets.NewListDeletedSecretPropertiesPager(nil), func(page azsecrets.ListDeletedSecretPropertiesResponse) []string {
		return each(page.Value, func(item *azsecrets.DeletedSecretProperties) string { return item.ID.Name() })
	})
	if err != nil {
		return err
	}
	r.Refusals = refusals(ctx, secrets, keys, certificates)
	return r.write(ctx, plan.Vault, credential, options)
}

// Sets a secret with a new client: its first request has no body until the vault's challenge is
// answered.
func (r *report) write(ctx context.Context, vault string, credential azcore.TokenCredential, options azcore.ClientOptions) error {
	secrets, err := azsecrets.NewClient(vault, credential, &azsecrets.ClientOptions{ClientOptions: options})
	if err != nil {
		return err
	}
	value, expires := "set by the SDK", time.Unix(4_000_000_000, 0).UTC()
	set, err := secrets.SetSecret(ctx, "written", azsecrets.SetSecretParameters{
		Value: &value, SecretAttributes: &azsecrets.SecretAttributes{Expires: &expires},
	}, nil)
	if err != nil {
		return err
	}
	r.Written = []string{set.ID.Version(), *set.Value, set.Attributes.Expires.UTC().Format(time.RFC3339)}
	return nil
}

func refusals(ctx context.Context, secrets *azsecrets.Client, keys *azkeys.Client, certificates *azcertificates.Client) map[string]string {
	_, secret := secrets.GetSecret(ctx, "missing", "", nil)
	_, key := keys.GetKey(ctx, "missing", "", nil)
	_, certificate := certificates.GetCertificate(ctx, "missing", "", nil)
	_, deleted := secrets.GetSecret(ctx, "deleted-0", "", nil)
	_, version := secrets.GetSecret(ctx, "password", "00000000000000000000000000000000", nil)
	_, name := secrets.GetSecret(ctx, "not_a_name", "", nil)
	return map[string]string{
		"secret": refusal(secret), "key": refusal(key), "certificate": refusal(certificate),
		"deleted": refusal(deleted), "version": refusal(version), "name": refusal(name),
	}
}

func readAll(r reader) (inventory, error) {
	all := inventory{Versions: map[string][][]string{}, Objects: map[string]map[string]any{}, Newest: map[string]string{}}
	var err error
	if all.Pages, err = r.names(); err != nil {
		return all, err
	}
	for _, page := range all.Pages {
		for _, name := range page {
			if all.Versions[name], err = r.versions(name); err != nil {
				return all, err
			}
			all.Objects[name] = map[string]any{}
			for _, page := range all.Versions[name] {
				for _, version := range page {
					_, object, err := r.object(name, version)
					if err != nil {
						object = refusal(err)
					}
					all.Objects[name][version] = object
				}
			}
			newest, _, err := r.object(name, "")
			if err != nil {
				newest = refusal(err)
			}
			all.Newest[name] = newest
		}
	}
	return all, nil
}

func secretReader(ctx context.Context, client *azsecrets.Client) reader {
	return reader{
		names: func() ([][]string, error) {
			return listed(ctx, client.NewListSecretPropertiesPager(nil), func(page azsecrets.ListSecretPropertiesResponse) []string {
				return each(page.Value, func(item *azsecrets.SecretProperties) string { return item.ID.Name() })
			})
		},
		versions: func(name string) ([][]string, error) {
			return listed(ctx, client.NewListSecretPropertiesVersionsPager(name, nil), func(page azsecrets.ListSecretPropertiesVersionsResponse) []string {
				return each(page.Value, func(item *azsecrets.SecretProperties) string { return item.ID.Version() })
			})
		},
		object: func(name, version string) (string, any, error) {
			got, err := client.GetSecret(ctx, name, version, nil)
			if err != nil {
				return "", nil, err
			}
			content := map[string]any{
				"value": got.Value, "contentType": got.ContentType, "tags": got.Tags, "managed": got.Managed != nil && *got.Managed,
				"enabled": got.Attributes.Enabled, "expires": seconds(got.Attributes.Expires), "notBefore": seconds(got.Attributes.NotBefore),
			}
			return got.ID.Version(), content, nil
		},
	}
}

func keyReader(ctx context.Context, client *azkeys.Client) reader {
	return reader{
		names: func() ([][]string, error) {
			return listed(ctx, client.NewListKeyPropertiesPager(nil), func(page azkeys.ListKeyPropertiesResponse) []string {
				return each(page.Value, func(item *azkeys.KeyProperties) string { return item.KID.Name() })
			})
		},
		versions: func(name string) ([][]string, error) {
			return listed(ctx, client.NewListKeyPropertiesVersionsPager(name, nil), func(page azkeys.ListKeyPropertiesVersionsResponse) []string {
				return each(page.Value, func(item *azkeys.KeyProperties) string { return item.KID.Version() })
			})
		},
		object: func(name, version string) (string, any, error) {
			got, err := client.GetKey(ctx, name, version, nil)
			if err != nil {
				return "", nil, err
			}
			content := map[string]any{
				"kty": got.Key.Kty, "crv": got.Key.Crv, "n": number(got.Key.N), "e": number(got.Key.E),
				"x": number(got.Key.X), "y": number(got.Key.Y), "enabled": got.Attributes.Enabled,
			}
			return got.Key.KID.Version(), content, nil
		},
	}
}

func certificateReader(ctx context.Context, client *azcertificates.Client) reader {
	return reader{
		names: func() ([][]string, error) {
			return listed(ctx, client.NewListCertificatePropertiesPager(nil), func(page azcertificates.ListCertificatePropertiesResponse) []string {
				return each(page.Value, func(item *azcertificates.CertificateProperties) string { return item.ID.Name() })
			})
		},
		versions: func(name string) ([][]string, error) {
			return listed(ctx, client.NewListCertificatePropertiesVersionsPager(name, nil), func(page azcertificates.ListCertificatePropertiesVersionsResponse) []string {
				return each(page.Value, func(item *azcertificates.CertificateProperties) string { return item.ID.Version() })
			})
		},
		object: func(name, version string) (string, any, error) {
			got, err := client.GetCertificate(ctx, name, version, nil)
			if err != nil {
				return "", nil, err
			}
			content := map[string]any{
				"cer": base64.StdEncoding.EncodeToString(got.CER), "thumbprint": number(got.X509Thumbprint),
				"key": got.KID.Version(), "secret": got.SID.Version(), "enabled": got.Attributes.Enabled,
			}
			return got.ID.Version(), content, nil
		},
	}
}

// Follows every nextLink of a list.
func listed[T any](ctx context.Context, pager *runtime.Pager[T], names func(T) []string) ([][]string, error) {
	pages := [][]string{}
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		pages = append(pages, names(page))
	}
	return pages, nil
}

func each[T any](items []*T, name func(*T) string) []string {
	names := make([]string, 0, len(items))
	for _, item := range items {
		names = append(names, name(item))
	}
	return names
}

// Status, code and inner code of a refusal by the vault.
func refusal(err error) string {
	if err == nil {
		return "no error"
	}
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) {
		return err.Error()
	}
	var body struct {
		Error struct {
			Inner struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	if payload, err := runtime.Payload(refused.RawResponse); err == nil {
		_ = json.Unmarshal(payload, &body)
	}
	text := fmt.Sprintf("%d %s", refused.StatusCode, refused.ErrorCode)
	if inner := body.Error.Inner.Code; inner != "" {
		text += "/" + inner
	}
	return text
}

func number(bytes []byte) string {
	return base64.RawURLEncoding.EncodeToString(bytes)
}

func seconds(moment *time.Time) *int64 {
	if moment == nil {
		return nil
	}
	unix := moment.Unix()
	return &unix
}
