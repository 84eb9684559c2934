//! Layers as a table, and the damage of layers.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use sandboxed_db::cache::{Damage, LayerInfo};

use super::table::Table;
use super::units::ago;

pub(super) fn list(layers: &[LayerInfo]) -> String {
    let rows = layers.iter().map(|layer| {
        let name =
            |step: &String| Path::new(step).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let steps = match layer.steps.as_slice() {
            [] if layer.engine.is_empty() => "unreadable manifest".to_owned(),
            [] => "fresh server".to_owned(),
            [one] => name(one),
            [first, .., last] => format!("{} … {} ({} steps)", name(first), name(last), layer.steps.len()),
        };
        vec![
            layer.digest.get(..12).unwrap_or(&layer.digest).to_owned(),
            format!("{} {}", layer.engine, version(&layer.version)),
            ByteSize(layer.size).to_string(),
            ByteSize(layer.shared).to_string(),
            if layer.in_use { "now".to_owned() } else { used(layer.last_used) },
            steps,
        ]
    });
    Table::new(["DIGEST", "ENGINE", "SIZE", "SHARED", "USED", "STEPS"], 2..4, rows).text("")
}

pub(super) fn damage(damaged: &[Damage]) -> String {
    if damaged.is_empty() {
        return "all layers match their manifests\n".to_owned();
    }
    let mut text = String::new();
    for damage in damaged {
        text.push_str(&format!("{} was damaged and is set aside:\n", damage.digest));
        damage.differences.iter().for_each(|difference| text.push_str(&format!("  {difference}\n")));
    }
    text
}

/// Returns `15.18` for `postgres (PostgreSQL) 15.18 (Debian …)`.
pub(super) fn version(text: &str) -> &str {
    text.split_ascii_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or("")
}

/// Formats the time of the last use, which is recorded to the hour.
fn used(time: SystemTime) -> String {
    match time.elapsed() {
        Ok(age) if age >= Duration::from_secs(2 * 60 * 60) => ago(time),
        _ => "within 2 h".to_owned(),
    }
}
