//! `admissions[]`.

use super::auth::lines_file;
use super::reader::Field;
use super::settings::flag;
use crate::addr::InvalidNetwork;
use crate::admission::Settings;

pub(crate) fn read(name: &str, field: &Field<'_>) -> Option<Settings> {
    let map = field.map()?;
    map.get(&["name"]);
    let whitelist = flag(&map, &["whitelist", "reverse"]).unwrap_or(false);
    let matchers = map.get(&["matchers"]).map(|f| f.list()).unwrap_or_default();
    let network = |field: &Field<'_>| {
        let text = field.text()?;
        let read = text.parse();
        if let Err(InvalidNetwork) = read {
            field.error(format!("{text:?} is {InvalidNetwork}"), "expected 192.0.2.1 or 10.0.0.0/8");
        }
        read.ok()
    };
    let networks = matchers.iter().filter_map(network).collect();
    let file = lines_file(&map, "");
    map.finish(&[], &["redis", "http", "plugin"]);
    Some(Settings { name: name.to_owned(), whitelist, networks, file })
}
