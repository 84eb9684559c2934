//! Layers as a table, and what is wrong with them.

use std::path::Path;
use std::time::SystemTime;

use bytesize::ByteSize;
use sandboxed_db::{Damage, LayerInfo};

pub(super) fn table(layers: &[LayerInfo]) -> String {
    let mut text = line("DIGEST", "ENGINE", "SIZE", "SHARED", "USED", "STEPS");
    for layer in layers {
        let engine = format!("{} {}", layer.engine, version(&layer.version));
        let used = if layer.in_use { "now".to_owned() } else { ago(layer.last_used) };
        let name =
            |step: &String| Path::new(step).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let steps = match layer.steps.as_slice() {
            [] => "fresh server".to_owned(),
            [one] => name(one),
            [first, .., last] => format!("{} … {} ({} files)", name(first), name(last), layer.steps.len()),
        };
        let digest = layer.digest.get(..12).unwrap_or(&layer.digest);
        let (size, shared) = (ByteSize(layer.size).to_string(), ByteSize(layer.shared).to_string());
        text.push_str(&line(digest, &engine, &size, &shared, &used, &steps));
    }
    text
}

fn line(digest: &str, engine: &str, size: &str, shared: &str, used: &str, steps: &str) -> String {
    format!("{digest:<12}  {engine:<16}  {size:>10}  {shared:>10}  {used:<14}  {steps}\n")
}

pub(super) fn report(damaged: &[Damage]) -> String {
    if damaged.is_empty() {
        return "all layers are what their manifests say\n".to_owned();
    }
    let mut text = String::new();
    for damage in damaged {
        text.push_str(&format!("{} was damaged and is set aside:\n", damage.digest));
        damage.differences.iter().for_each(|difference| text.push_str(&format!("  {difference}\n")));
    }
    text
}

/// `15.18` of `postgres (PostgreSQL) 15.18 (Debian …)`.
pub(super) fn version(text: &str) -> &str {
    text.split_ascii_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or("")
}

fn ago(time: SystemTime) -> String {
    // Noted to the hour, so that minutes would be made up.
    match SystemTime::now().duration_since(time).unwrap_or_default().as_secs() / 3600 {
        0 => "within an hour".to_owned(),
        hours @ 1..48 => format!("{hours} h ago"),
        hours => format!("{} days ago", hours / 24),
    }
}
