//! WASI preview 1 with nothing behind it, for the modules that languages build for `wasip1`. What each of its functions does,
//! and why, is told in `adapter/preview1.wat`.

use super::bind;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// What such modules call it.
pub(super) const NAME: &str = "wasi_snapshot_preview1";

/// The calls of which the host is told; what else there is not, a runtime may ask for in its start.
const REFUSED: &[&str] = &[
    "path-create-directory",
    "path-filestat-get",
    "path-filestat-set-times",
    "path-link",
    "path-open",
    "path-readlink",
    "path-remove-directory",
    "path-rename",
    "path-symlink",
    "path-unlink-file",
    "sock-accept",
    "sock-recv",
    "sock-send",
    "sock-shutdown",
];

/// The adapter as wit-component wants it: with the description of what it imports. Made anew for each module: a millisecond
/// beside the many that compiling takes.
///
/// # Errors
///
/// None, unless `wit` and the adapter do not fit each other.
pub(super) fn preview1(wit: &str) -> anyhow::Result<Vec<u8>> {
    let mut module = wat::parse_str(include_str!("adapter/preview1.wat"))?;
    let mut resolve = Resolve::default();
    resolve.push_str("routing.wit", wit)?;
    let calls: String = REFUSED.iter().map(|call| format!("{call}: func() -> result; ")).collect();
    resolve
        .push_str("refused.wit", &format!("package wasi:snapshot@0.2.0; interface preview1 {{ {calls} }}"))?;
    let world = format!(
        "package pointsman:preview1;\nworld adapter {{
            import pointsman:routing/host@{};
            import wasi:snapshot/preview1@0.2.0;\n}}",
        bind::VERSION
    );
    let package = resolve.push_str("preview1.wit", &world)?;
    let world = resolve.select_world(&[package], Some("adapter"))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

#[cfg(test)]
mod tests {
    use crate::plugin::{Answer, Case, CompiledCache, Limits, Outcome, Plugin, Runtime, Source};

    fn ask(hostname: &str) -> Outcome {
        let runtime = Runtime::new(Limits::default(), CompiledCache::default()).unwrap();
        let code = wat::parse_file("tests/data/guests/preview1.wat").unwrap();
        let generation =
            Plugin::new(&runtime, "preview1").prepare(&Source { code, ..Source::default() }).unwrap();
        let question = Case::question(Some(&format!("hostname: {hostname}")), Default::default());
        question.unwrap().run(&generation).unwrap()
    }

    fn lines(outcome: &Outcome) -> Vec<(&str, &str)> {
        outcome.log.iter().map(|(level, text)| (level.as_str(), text.as_str())).collect()
    }

    const LINES: [(&str, &str); 4] =
        [("warn", "warned"), ("info", "one line"), ("info", "a??(???????z"), ("info", "$ä€𝄞")];

    #[test]
    fn nothing_of_the_outside_is_there() {
        let outcome = ask("a.example");
        assert_eq!(outcome.answer, Answer::Pass);
        assert_eq!(lines(&outcome), LINES);
    }

    #[test]
    fn an_exit_logs_the_rest_of_the_line_and_traps() {
        let outcome = ask("x");
        assert_eq!(outcome.answer, Answer::Error);
        assert_eq!(lines(&outcome), [&LINES[..], &[("info", "rest")]].concat());
    }
}
