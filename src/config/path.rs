//! Where in a document a value is, written out only for whoever is told of it: a hundred thousand rules have nothing to tell.

use std::fmt::Write;
use std::rc::Rc;

/// The way to a mapping or a list from the top of its document, which is the default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path<'a>(Option<Rc<(Self, Step<'a>)>>);

/// The last part of the way to a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// None: it is the document.
    Top,
    /// The key that it stands under.
    Key(&'a str),
    /// Its number in a list.
    Item(usize),
}

impl<'a> Path<'a> {
    /// The way that goes one step further.
    pub(crate) fn below(&self, step: Step<'a>) -> Self {
        if let Step::Top = step { self.clone() } else { Self(Some(Rc::new((self.clone(), step)))) }
    }

    /// That way as text: `services[0].handler.type`.
    pub(crate) fn to(&self, step: Step<'_>) -> String {
        let mut text = self.to_string();
        let dot = if text.is_empty() { "" } else { "." };
        // A String takes all that is written to it.
        let _ = match step {
            Step::Top => Ok(()),
            Step::Key(key) => write!(text, "{dot}{key}"),
            Step::Item(number) => write!(text, "[{number}]"),
        };
        text
    }
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_deref().map_or(Ok(()), |(around, step)| f.write_str(&around.to(*step)))
    }
}
