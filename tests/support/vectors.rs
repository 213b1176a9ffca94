//! The recorded files in `tests/data/vectors`: captures of the real program, and tables of what it does.

/// One read from a socket.
#[derive(Debug)]
pub(crate) struct Read {
    /// The capture's number for the connection.
    pub(crate) conn: u32,
    /// Sent by the dialling side.
    pub(crate) to_server: bool,
    pub(crate) bytes: Vec<u8>,
    /// The `# ^` lines below it.
    pub(crate) notes: Vec<String>,
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "an odd number of digits: {text}");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// The names of all files with that ending, in order.
pub(crate) fn names(ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir("tests/data/vectors").unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(ending));
    names.sort();
    names
}

/// The text of the file whose name begins with that number.
pub(crate) fn text(number: &str) -> String {
    let names = names("");
    let name = names.iter().find(|name| name.starts_with(&format!("{number}-")));
    std::fs::read_to_string(format!("tests/data/vectors/{}", name.unwrap())).unwrap()
}

/// The rows of a table: every line that is neither empty nor a comment.
pub(crate) fn rows(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The reads of a capture.
pub(crate) fn capture(text: &str) -> Vec<Read> {
    let mut reads: Vec<Read> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(note) = line.strip_prefix("# ^ ") {
            reads.last_mut().unwrap().notes.push(note.to_owned());
        } else if !line.starts_with('#') {
            let words: Vec<_> = line.split(' ').collect();
            let [direction @ ("C>S" | "S>C"), conn, bytes] = words[..] else { panic!("no read: {line}") };
            let (to_server, conn, bytes) = (direction == "C>S", conn.parse().unwrap(), hex(bytes));
            reads.push(Read { conn, to_server, bytes, notes: Vec::new() });
        }
    }
    reads
}
