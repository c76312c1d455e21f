// Microsoft's SDK for Go as a client of the emulator, which shares no code with it.
//
// Reads a plan from the standard input, logs in by each way that it names, reads everything in one
// vault, and prints what the SDK returned. It judges nothing: e2e/azure/tests/it/go_sdk.rs compares
// its report with what was put into the vaults. The CA of the emulator comes by SSL_CERT_FILE.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"
)

// The plan: where the emulator is, the logins to try, and the vault to read with the first of them.
type plan struct {
	Emulator string  `json:"emulator"`
	Metadata string  `json:"metadata"`
	Vault    string  `json:"vault"`
	Logins   []login `json:"logins"`
}

type report struct {
	// Versions of the SDK's modules.
	Modules map[string]string `json:"modules"`
	// The secret that each login read, or its error.
	Logins map[string]string `json:"logins"`
	// The outcome of calls that the vault must refuse.
	Refusals     map[string]string `json:"refusals"`
	Secrets      inventory         `json:"secrets"`
	Keys         inventory         `json:"keys"`
	Certificates inventory         `json:"certificates"`
	// Names of deleted secrets, a list for each page.
	Deleted [][]string `json:"deleted"`
	// Version and value of a secret that the SDK set.
	Written []string `json:"written"`
}

// The whole run; a request that hangs ends it.
const deadline = 2 * time.Minute

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var plan plan
	if err := json.NewDecoder(os.Stdin).Decode(&plan); err != nil {
		return fmt.Errorf("the plan is not JSON: %w", err)
	}
	client := toEmulator(plan)
	report := report{Modules: modules(), Logins: map[string]string{}}
	for _, login := range plan.Logins {
		value, err := login.readSecret(ctx, client)
		if err != nil {
			value = "error: " + err.Error()
		}
		report.Logins[login.Name] = value
	}
	if err := report.readVault(ctx, plan, client); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// A client that connects to the emulator whatever the host, and to its metadata service for the
// address that this service has on each of Azure's virtual machines. The SDK has no setting for it.
func toEmulator(plan plan) *http.Client {
	dialer := net.Dialer{Timeout: 20 * time.Second}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "169.254.169.254:80" {
			return dialer.DialContext(ctx, network, plan.Metadata)
		}
		return dialer.DialContext(ctx, network, plan.Emulator)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, ForceAttemptHTTP2: true}}
}

// The modules of Azure that this program was built from, by the last part of their path.
func modules() map[string]string {
	found := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return found
	}
	for _, module := range info.Deps {
		if strings.HasPrefix(strings.ToLower(module.Path), "github.com/azure") {
			parts := strings.Split(module.Path, "/")
			found[parts[len(parts)-1]] = module.Version
		}
	}
	return found
}
