//go:build tools

// Package tools names the command that is built from this module, so that go.mod and go.sum pin all it needs.
package tools

import _ "github.com/prometheus/prometheus/cmd/promtool"
