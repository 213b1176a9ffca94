//! `log`: from which level, in which form, and where to.

use super::reader::Map;
use super::settings::word;
use crate::telemetry::{Level, Output, Settings};
use std::path::PathBuf;

pub(crate) fn read(map: Map<'_>) -> Settings {
    let mut log = Settings::default();
    if let Some(field) = map.filled(&["level"]) {
        log.level = match word(&field, &["trace", "debug", "info", "warn", "error", "fatal"]) {
            Some("trace") => Level::Trace,
            Some("debug") => Level::Debug,
            Some("warn") => Level::Warn,
            Some("error" | "fatal") => Level::Error,
            _ => log.level,
        };
    }
    if let Some(field) = map.filled(&["format"]) {
        log.json = word(&field, &["json", "text"]) == Some("json");
    }
    log.output = match map.text(&["output"]) {
        None | Some("stderr") => Output::Stderr,
        Some("stdout") => Output::Stdout,
        Some("none") => Output::None,
        Some(path) => Output::File(PathBuf::from(path)),
    };
    map.finish(&["rotation"], &[]);
    log
}
