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
            [] if layer.engine == "image" => layer.version.clone(),
            [] if layer.engine == "packages" => format!("{} for {}", names(&layer.digest), layer.version),
            [] => "fresh server".to_owned(),
            [one] => name(one),
            [first, .., last] => format!("{} … {} ({} steps)", name(first), name(last), layer.steps.len()),
        };
        vec![
            hash(&layer.digest).get(..12).unwrap_or(&layer.digest).to_owned(),
            format!("{} {}", layer.engine, version(&layer.version)),
            ByteSize(layer.size).to_string(),
            ByteSize(layer.shared).to_string(),
            if layer.in_use { "now".to_owned() } else { used(layer.last_used) },
            layer.origin.as_deref().map(repository).unwrap_or_default().to_owned(),
            steps,
        ]
    });
    let mut table = Table::new(["DIGEST", "ENGINE", "SIZE", "SHARED", "USED", "FROM", "STEPS"], 2..4, rows);
    if layers.iter().all(|layer| layer.origin.is_none()) {
        table.drop_column("FROM");
    }
    table.text("")
}

/// Returns the hash in the name of unpacked packages, `names.hash`, or the whole name of others.
fn hash(digest: &str) -> &str {
    digest.rsplit_once('.').map_or(digest, |(_, hash)| hash)
}

/// Returns the names in that of unpacked packages.
fn names(digest: &str) -> String {
    digest.rsplit_once('.').map_or(digest, |(names, _)| names).replace('_', ", ")
}

/// Returns the repository of a place in a registry.
fn repository(origin: &str) -> &str {
    let name = origin.split('@').next().unwrap_or_default();
    name.rsplit_once(':').map_or(name, |(name, _)| name)
}

pub(super) fn removed(layer: &LayerInfo) -> String {
    match &layer.origin {
        Some(origin) => format!("removed {}, pulled from {}\n", layer.digest, repository(origin)),
        None => format!("removed {}\n", layer.digest),
    }
}

pub(super) fn damage(damaged: &[Damage]) -> String {
    if damaged.is_empty() {
        return "all layers match their manifests\n".to_owned();
    }
    let mut text = String::new();
    for damage in damaged {
        let origin = damage.origin.as_ref().map(|origin| format!(", pulled from {},", repository(origin)));
        let origin = origin.unwrap_or_default();
        text.push_str(&format!("{}{origin} was damaged and is set aside:\n", damage.digest));
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
