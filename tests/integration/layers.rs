//! Each module uses only modules of rows above its own; the rows stand in the table of `src/lib.rs`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn rows() -> HashMap<String, usize> {
    let text = std::fs::read_to_string("src/lib.rs").unwrap();
    let mut rows = HashMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let mut cells = line.split('|');
        let Ok(row) = cells.next().unwrap().trim().parse() else { continue };
        for module in cells.next().unwrap().split(',') {
            rows.insert(module.trim().trim_matches('`').to_owned(), row);
        }
    }
    rows
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The first words behind `crate::` in a line, `{a, b::c}` included.
fn used(line: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    line.match_indices("crate::")
        .flat_map(|(at, found)| {
            let rest = &line[at + found.len()..];
            match rest.strip_prefix('{') {
                Some(list) => list.split(',').map(|part| word(part.trim())).collect(),
                None => vec![word(rest)],
            }
        })
        .collect()
}

#[test]
fn modules_use_only_rows_above() {
    let rows = rows();
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut checked = 0;
    for file in
        files.iter().filter(|f| !matches!(f.file_name().unwrap().to_str(), Some("lib.rs" | "main.rs")))
    {
        let module = file
            .components()
            .nth(1)
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        let own = *rows.get(&module).unwrap_or_else(|| panic!("module {module} has no row in src/lib.rs"));
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for name in code.lines().flat_map(used).filter(|name| *name != module) {
            let Some(&row) = rows.get(&name) else { continue };
            assert!(row < own, "{}: row {own} uses {name}, which is in row {row}", file.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} uses found");
}
