//! The reader of matcher expressions: text to [`Expr`], by recursive descent.
//!
//! `!` binds tighter than `&&`, and that tighter than `||`. Strings stand in back quotes, as they are, or in double quotes
//! with Go's escapes. Every error says where it was found.

use super::function::Want;
use super::{Expr, Function, HostPattern, ParseError};
use crate::addr::InvalidNetwork;
use regex::bytes::{Regex, RegexBuilder};

/// Longest text that is taken. Without it one line of a configuration fetched from elsewhere could fill the memory.
pub(super) const MAX_RULE_LEN: usize = 16 * 1024;

/// Deepest nesting of parentheses. Without it a short text of brackets would overflow the stack, here and in evaluation.
pub(super) const MAX_DEPTH: usize = 64;

/// Most that one compiled regular expression, and what it keeps while matching, may take. Without it `(\w{1000}){1000}` would
/// take gigabytes.
const MAX_REGEX_SIZE: usize = 1024 * 1024;

/// Regular expressions in one rule. Without it a rule full of them could take [`MAX_REGEX_SIZE`] for every few bytes of text.
const MAX_REGEXES: usize = 32;

/// Every function, in the spelling of the documentation.
const FUNCTIONS: [&str; 17] = [
    "Host",
    "HostRegexp",
    "Method",
    "Path",
    "PathPrefix",
    "PathRegexp",
    "Query",
    "QueryRegexp",
    "Header",
    "HeaderRegexp",
    "ClientIP",
    "Proto",
    "Network",
    "BodyRegexp",
    "BodyJSON",
    "Bypass",
    "Admission",
];

pub(super) fn parse(text: &str) -> Result<Expr, ParseError> {
    if text.len() > MAX_RULE_LEN {
        return Err(error(MAX_RULE_LEN, format!("a rule may have {MAX_RULE_LEN} bytes, not more")));
    }
    let mut parser = Parser { text, at: 0, regexes: 0 };
    let expr = parser.any(0)?;
    parser.space();
    match parser.rest().chars().next() {
        None => Ok(expr),
        Some(c) => Err(parser.error(format!("expected `&&`, `||` or the end, found {c:?}"))),
    }
}

fn error(offset: usize, message: impl Into<String>) -> ParseError {
    ParseError { message: message.into(), offset }
}

struct Parser<'a> {
    text: &'a str,
    /// Always at a character boundary.
    at: usize,
    /// How many regular expressions have been read.
    regexes: usize,
}

/// One argument of a function.
struct Arg {
    text: String,
    offset: usize,
    quoted: bool,
}

impl<'a> Parser<'a> {
    fn any(&mut self, depth: usize) -> Result<Expr, ParseError> {
        let first = self.all(depth)?;
        self.joined("||", first, |parser| parser.all(depth), Expr::Any)
    }

    fn all(&mut self, depth: usize) -> Result<Expr, ParseError> {
        let first = self.term(depth)?;
        self.joined("&&", first, |parser| parser.term(depth), Expr::All)
    }

    fn joined(
        &mut self,
        operator: &str,
        first: Expr,
        mut next: impl FnMut(&mut Self) -> Result<Expr, ParseError>,
        join: fn(Vec<Expr>) -> Expr,
    ) -> Result<Expr, ParseError> {
        if !self.take(operator) {
            return Ok(first);
        }
        let mut terms = vec![first, next(self)?];
        while self.take(operator) {
            terms.push(next(self)?);
        }
        Ok(join(terms))
    }

    fn term(&mut self, depth: usize) -> Result<Expr, ParseError> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let expr = if self.take("(") {
            if depth == MAX_DEPTH {
                return Err(self.error(format!("more than {MAX_DEPTH} parentheses in each other")));
            }
            let inner = self.any(depth + 1)?;
            self.expect(")")?;
            inner
        } else {
            self.function()?
        };
        Ok(match expr {
            Expr::Not(inner) if negated => *inner,
            expr if negated => Expr::Not(Box::new(expr)),
            expr => expr,
        })
    }

    fn function(&mut self) -> Result<Expr, ParseError> {
        self.space();
        let start = self.at;
        let word = self.word();
        if word.is_empty() {
            return Err(self.unexpected("a function such as Host(`example.com`)"));
        }
        let name = function_named(word).ok_or_else(|| error(start, unknown_function(word)))?;
        self.regexes += usize::from(name.ends_with("Regexp"));
        if self.regexes > MAX_REGEXES {
            return Err(error(start, format!("more than {MAX_REGEXES} regular expressions in one rule")));
        }
        self.expect("(")?;
        let mut args = Vec::new();
        while !self.take(")") {
            if !args.is_empty() {
                self.expect(",")?;
            }
            args.push(self.arg()?);
        }
        build(name, start, &args).map(Expr::Call)
    }

    fn arg(&mut self) -> Result<Arg, ParseError> {
        self.space();
        let offset = self.at;
        let (text, quoted) = match self.rest().chars().next() {
            Some('`') => (self.raw_string()?, true),
            Some('"') => (self.quoted_string()?, true),
            _ => (self.word().to_owned(), false),
        };
        if text.is_empty() {
            let what = if quoted { "the text may not be empty" } else { "expected a text in back quotes" };
            return Err(error(offset, what));
        }
        Ok(Arg { text, offset, quoted })
    }

    fn raw_string(&mut self) -> Result<String, ParseError> {
        let inner = &self.rest()[1..];
        let end = inner.find('`').ok_or_else(|| self.error("this back quote is never closed"))?;
        self.at += end + 2;
        Ok(inner[..end].to_owned())
    }

    fn quoted_string(&mut self) -> Result<String, ParseError> {
        let start = self.at;
        let mut text = String::new();
        self.at += 1;
        while let Some(c) = self.rest().chars().next() {
            let at = self.at;
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(text),
                '\\' => text.push(self.escape().ok_or_else(|| error(at, "unknown escape in double quotes"))?),
                c => text.push(c),
            }
        }
        Err(error(start, "this double quote is never closed"))
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        let digits = match c {
            '\\' | '"' => return Some(c),
            'n' => return Some('\n'),
            't' => return Some('\t'),
            'r' => return Some('\r'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return None,
        };
        let hex = self.rest().get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let code = u32::from_str_radix(hex, 16).ok()?;
        self.at += digits;
        // `\x80` and above are single bytes in Go, which no text here can hold.
        if c == 'x' && code > 0x7f { None } else { char::from_u32(code) }
    }

    /// Letters, digits and what a number needs; may be empty.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+')));
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_ascii_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), ParseError> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected(&format!("`{token}`"))) }
    }

    fn unexpected(&self, expected: &str) -> ParseError {
        self.error(match self.rest().chars().next() {
            Some(c) => format!("expected {expected}, found {c:?}"),
            None => format!("expected {expected}, found the end"),
        })
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        error(self.at, message)
    }
}

/// Names are taken as documented, in lower case, in upper case, and with a capital in front only.
fn function_named(word: &str) -> Option<&'static str> {
    FUNCTIONS.into_iter().find(|name| {
        word.eq_ignore_ascii_case(name)
            && (word == *name
                || !word.bytes().any(|b| b.is_ascii_uppercase())
                || !word.bytes().any(|b| b.is_ascii_lowercase())
                || (word.starts_with(|c: char| c.is_ascii_uppercase())
                    && !word.bytes().skip(1).any(|b| b.is_ascii_uppercase())))
    })
}

fn unknown_function(word: &str) -> String {
    let distance =
        |name: &&str| strsim::damerau_levenshtein(&word.to_ascii_lowercase(), &name.to_ascii_lowercase());
    // Comparing costs the product of the lengths: a word far longer than any name is not worth it.
    let near = FUNCTIONS.into_iter().filter(|_| word.len() <= 24).min_by_key(distance);
    match near.filter(|name| distance(name) <= 2) {
        Some(name) => format!("unknown function {word:?}, did you mean {name:?}?"),
        None => format!("unknown function {word:?}"),
    }
}

fn build(name: &'static str, start: usize, args: &[Arg]) -> Result<Function, ParseError> {
    let refused = match name {
        "BodyRegexp" | "BodyJSON" => "bodies are passed on as they come, and not held back to be looked at",
        "Bypass" | "Admission" => "what it names is not supported yet",
        _ => "",
    };
    if !refused.is_empty() {
        return Err(error(start, format!("{name} is not supported: {refused}")));
    }
    let counts = match name {
        "Query" | "Header" => 1..=3,
        "QueryRegexp" | "HeaderRegexp" => 1..=2,
        _ => 1..=1,
    };
    let first = match args.first() {
        Some(first) if counts.contains(&args.len()) => first,
        _ => return Err(error(start, wrong_count(name, args.len(), counts.into_inner()))),
    };
    let operands = if args.len() == 3 { &args[..1] } else { args };
    if let Some(bare) = operands.iter().find(|arg| !arg.quoted) {
        return Err(error(bare.offset, format!("write {:?} in back quotes", bare.text)));
    }
    let text = first.text.as_str();
    Ok(match name {
        "Host" => Function::Host(
            HostPattern::from_rule(text)
                .map_err(|e| error(first.offset, format!("{text:?} is no host: {e}")))?,
        ),
        "HostRegexp" => Function::HostRegexp(regex(first)?),
        "Method" => Function::Method(text.to_ascii_uppercase().into()),
        "Path" => Function::Path(absolute_path(first)?),
        "PathPrefix" => Function::PathPrefix(absolute_path(first)?),
        "PathRegexp" => Function::PathRegexp(regex(first)?),
        "Query" => Function::Query(text.into(), want(args)?),
        "QueryRegexp" => Function::Query(text.into(), want_regex(args)?),
        "Header" => Function::Header(text.into(), want(args)?),
        "HeaderRegexp" => Function::Header(text.into(), want_regex(args)?),
        "ClientIP" => {
            let network = text.parse();
            Function::ClientIp(
                network.map_err(|e: InvalidNetwork| error(first.offset, format!("{text:?} is {e}")))?,
            )
        }
        "Proto" => Function::Proto(text.to_ascii_lowercase().into()),
        _ => Function::Network(text.into()),
    })
}

fn wrong_count(name: &str, found: usize, (min, max): (usize, usize)) -> String {
    match (min, max) {
        (1, 1) => format!("{name} takes one text, found {found}"),
        (min, max) => format!("{name} takes {min} to {max} arguments, found {found}"),
    }
}

fn absolute_path(arg: &Arg) -> Result<Box<[u8]>, ParseError> {
    if arg.text.starts_with('/') {
        Ok(arg.text.as_bytes().into())
    } else {
        Err(error(arg.offset, format!("path {:?} does not start with a slash", arg.text)))
    }
}

fn regex(arg: &Arg) -> Result<Regex, ParseError> {
    RegexBuilder::new(&arg.text)
        .size_limit(MAX_REGEX_SIZE)
        .dfa_size_limit(MAX_REGEX_SIZE)
        .build()
        .map_err(|e| error(arg.offset, format!("not a regular expression: {}", reason(&e))))
}

/// The last line of the regex crate's drawing of an error, which holds the words.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

fn want(args: &[Arg]) -> Result<Want, ParseError> {
    match args {
        [_, value] => Ok(Want::Equal(value.text.as_bytes().into())),
        [_, operator, number] => {
            let accepts = Want::operator(&operator.text).ok_or_else(|| {
                let found = &operator.text;
                error(operator.offset, format!("expected gt, ge, lt, le, eq or ne, found {found:?}"))
            })?;
            let limit = number.text.trim().parse().ok().filter(|n: &f64| n.is_finite());
            let limit =
                limit.ok_or_else(|| error(number.offset, format!("{:?} is no number", number.text)))?;
            Ok(Want::Number(accepts, limit))
        }
        _ => Ok(Want::Present),
    }
}

fn want_regex(args: &[Arg]) -> Result<Want, ParseError> {
    args.get(1).map_or(Ok(Want::Present), |pattern| regex(pattern).map(Want::Like))
}
