// Package export_pointsman_routing_ingress is where the bindings look for `resolve`.
//
// Country: visitors are sent through a tunnel, or sent away, by the network that their address is in. For an ingress.
package export_pointsman_routing_ingress

import (
	wit "go.bytecodealliance.org/pkg/wit/types"
	"wit_component/pointsman_routing_host"
	. "wit_component/pointsman_routing_ingress"
	"wit_component/pointsman_routing_types"
	"wit_component/table"
)

// Table is set by the configuration.
var Table *table.Table

// An address belongs to the same country for a while. With this the host calls once for each client and hostname in ten minutes,
// which matters: Go is among the slower guests.
var reuse = wit.Some(Reuse{TtlMs: 10 * 60 * 1000, DependsOn: pointsman_routing_types.Dependency_Client})

// Resolve decides one request or connection.
func Resolve(req Request) wit.Result[Answer, string] {
	country, err := Table.Country(req.Client)
	if err != nil {
		return wit.Err[Answer](err.Error())
	}
	// Seen in the plugin's metrics.
	pointsman_routing_host.Count(country, 1)

	verdict := MakeVerdictPass()
	switch action := Table.Action(country); {
	case action.Tunnel != "":
		verdict = MakeVerdictTunnel(action.Tunnel)
	case action.Status != 0:
		verdict = MakeVerdictRefuse(Refusal{Status: action.Status, Reason: "not available in your country"})
	}
	return wit.Ok[Answer, string](Answer{Verdict: verdict, Reuse: reuse})
}
