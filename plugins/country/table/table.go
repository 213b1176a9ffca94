// Package table holds which network belongs to which country, and what happens to a country's visitors.
package table

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Action is what happens to a visitor: Tunnel if it is not empty, Status if it is not 0, otherwise nothing.
type Action struct {
	Tunnel string
	Status uint16
}

// Table answers who an address belongs to.
type Table struct {
	countries map[netip.Prefix]string
	lengths   map[bool][]int // of prefixes, longest first; by whether they are IPv6
	actions   map[string]Action
}

// Other is the country of addresses that are in no network.
const Other = "other"

// Parse reads lines `COUNTRY: ACTION` and `NETWORK: COUNTRY`, which together are YAML. An action is `pass`, `tunnel UUID` or
// `refuse STATUS`.
func Parse(config string) (*Table, error) {
	t := &Table{map[netip.Prefix]string{}, map[bool][]int{}, map[string]Action{}}
	number := 0
	for line := range strings.Lines(config) {
		number++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := t.add(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	for prefix, country := range t.countries {
		if _, known := t.actions[country]; !known {
			return nil, fmt.Errorf("network %v: nothing is said about country %q", prefix, country)
		}
		v6 := prefix.Addr().Is6()
		if !slices.Contains(t.lengths[v6], prefix.Bits()) {
			t.lengths[v6] = append(t.lengths[v6], prefix.Bits())
		}
	}
	for _, lengths := range t.lengths {
		slices.Sort(lengths)
		slices.Reverse(lengths)
	}
	return t, nil
}

func (t *Table) add(line string) error {
	key, value, ok := strings.Cut(line, ": ")
	if !ok {
		return errors.New("expected COUNTRY: ACTION or NETWORK: COUNTRY")
	}
	value = strings.TrimSpace(value)
	if strings.Contains(key, "/") {
		prefix, err := netip.ParsePrefix(key)
		if err != nil {
			return err
		}
		t.countries[prefix.Masked()] = value
		return nil
	}
	action, err := parseAction(value)
	t.actions[key] = action
	return err
}

func parseAction(text string) (Action, error) {
	verb, object, _ := strings.Cut(text, " ")
	switch verb {
	case "pass":
		return Action{}, nil
	case "tunnel":
		return Action{Tunnel: object}, nil
	case "refuse":
		status, err := strconv.ParseUint(object, 10, 16)
		return Action{Status: uint16(status)}, err
	}
	return Action{}, fmt.Errorf("no action %q; there are pass, tunnel UUID, refuse STATUS", verb)
}

// Country finds the longest network that holds the address: one look-up for each length that occurs.
func (t *Table) Country(client string) (string, error) {
	addr, err := netip.ParseAddr(client)
	if err != nil {
		return "", err
	}
	addr = addr.Unmap()
	for _, bits := range t.lengths[addr.Is6()] {
		prefix, _ := addr.Prefix(bits)
		if country, ok := t.countries[prefix]; ok {
			return country, nil
		}
	}
	return Other, nil
}

// Action is what happens to a country's visitors.
func (t *Table) Action(country string) Action {
	return t.actions[country]
}
