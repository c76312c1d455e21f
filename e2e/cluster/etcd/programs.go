//go:build never

// Package etcd names the program, for go.mod. It is never compiled.
package etcd

import _ "go.etcd.io/etcd/server/v3"
