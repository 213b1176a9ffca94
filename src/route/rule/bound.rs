//! What a rule is bound to: the hosts and paths beside which it can never match.

use super::{Expr, Function};

/// Most alternatives that joining two lists of them may make. Without it a short rule of many hosts and many paths would be
/// filed under every pair of them.
const MAX_JOINED: usize = 64;

/// A condition that is necessary for a rule, not sufficient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::route) struct Bound<'a> {
    /// The hostname is this or under it; empty: any.
    pub(in crate::route) host: &'a str,
    /// There is a path, and it begins with this; empty: any, or none.
    pub(in crate::route) path: &'a [u8],
}

/// Alternatives, one of which every request meets that the expression holds for. Each is there once.
pub(super) fn bounds(expr: &Expr) -> Vec<Bound<'_>> {
    let mut bounds = match expr {
        Expr::Call(Function::Host(pattern)) => vec![Bound { host: pattern.name(), ..Bound::default() }],
        Expr::Call(Function::Path(path) | Function::PathPrefix(path)) => {
            vec![Bound { path, ..Bound::default() }]
        }
        Expr::All(terms) => terms.iter().map(bounds).reduce(both).unwrap_or_default(),
        Expr::Any(terms) => terms.iter().flat_map(bounds).collect(),
        Expr::Not(_) | Expr::Call(_) => vec![Bound::default()],
    };
    bounds.sort_unstable();
    bounds.dedup();
    // Beside an alternative that every request meets, the others say nothing.
    if bounds.first() == Some(&Bound::default()) {
        bounds.truncate(1);
    }
    bounds
}

/// The bounds where both lists hold: each alternative of the one with each of the other where that says more than one list
/// alone, and in few words; else the list that says more, or as much in fewer.
fn both<'a>(a: Vec<Bound<'a>>, b: Vec<Bound<'a>>) -> Vec<Bound<'a>> {
    let aspects: [fn(&Bound<'_>) -> bool; 3] =
        [|x| !x.host.is_empty(), |x| !x.path.is_empty(), |x| *x != Bound::default()];
    let covers = |x: &[Bound<'_>], y: &[Bound<'_>]| {
        aspects.iter().all(|says| x.iter().all(says) || !y.iter().all(says))
    };
    let (a_covers, b_covers) = (covers(&a, &b), covers(&b, &a));
    let a_stands = if a_covers == b_covers { a.len() <= b.len() } else { a_covers };
    let (stands, other) = if a_stands { (a, b) } else { (b, a) };
    let most = if a_covers || b_covers { stands.len() } else { other.len().max(MAX_JOINED) };
    if stands.len() * other.len() > most {
        return stands;
    }
    stands.iter().flat_map(|x| other.iter().map(|y| narrower(*x, *y))).collect()
}

/// Of two that must both be met, the longer ones say more.
fn narrower<'a>(a: Bound<'a>, b: Bound<'a>) -> Bound<'a> {
    Bound {
        host: if a.host.len() >= b.host.len() { a.host } else { b.host },
        path: if a.path.len() >= b.path.len() { a.path } else { b.path },
    }
}
