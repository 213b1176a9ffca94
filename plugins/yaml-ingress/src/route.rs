//! The binary's host patterns and rule table.

#[path = "../../../src/route/hosts.rs"]
pub mod hosts;
#[path = "../../../src/route/ingress/table.rs"]
pub mod table;
