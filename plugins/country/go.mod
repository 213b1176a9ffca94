// The name is the one that the bindings know the program by.
module wit_component

go 1.25

require go.bytecodealliance.org/pkg v0.4.0

// What the bindings stand on; `bindgen go` puts it there.
replace go.bytecodealliance.org/pkg => ./pkg
