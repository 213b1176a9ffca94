// Package export_pointsman_routing_lifecycle is where the bindings look for `configure`.
package export_pointsman_routing_lifecycle

import (
	"strings"

	wit "go.bytecodealliance.org/pkg/wit/types"
	"wit_component/export_pointsman_routing_ingress"
	"wit_component/table"
)

// Configure is called once, before the first decision.
func Configure(config string) wit.Result[wit.Unit, string] {
	// The text is gone after the call, and the table keeps pieces of it.
	parsed, err := table.Parse(strings.Clone(config))
	if err != nil {
		return wit.Err[wit.Unit](err.Error())
	}
	export_pointsman_routing_ingress.Table = parsed
	return wit.Ok[wit.Unit, string](wit.Unit{})
}
