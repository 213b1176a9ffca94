//! `admissions[]`.

use super::auth::lines_file;
use super::reader::Field;
use super::settings::{flag, networks};
use crate::admission::Settings;

pub(crate) fn read(name: &str, field: &Field<'_>) -> Option<Settings> {
    let map = field.map()?;
    map.get(&["name"]);
    let whitelist = flag(&map, &["whitelist", "reverse"]).unwrap_or(false);
    let networks = map.filled(&["matchers"]).map(|f| networks(&f)).unwrap_or_default();
    let file = lines_file(&map, "");
    map.finish(&[], &["redis", "http", "plugin"]);
    Some(Settings { name: name.to_owned(), whitelist, networks, file })
}
