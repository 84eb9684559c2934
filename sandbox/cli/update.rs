//! `sandboxed-db update`: names of images, asked for again and recorded.

use std::error::Error;

use clap::Args;
use sandboxed_db::harness::{UpdatedImage, update_images};
use serde_json::{Value, json};

use super::failure::Failure;
use super::{Format, print};

#[derive(Debug, Args)]
pub(super) struct UpdateArguments {
    /// The names, such as postgres:17 [default: all that are recorded].
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

impl UpdateArguments {
    pub(super) fn perform(&self, format: Format) -> Result<(), Box<dyn Error>> {
        let directory = std::env::current_dir()
            .map_err(|error| Failure::new("find the working directory").because(error))?;
        let (file, images) = update_images(&directory, &self.names)?;
        let value = json!({ "file": file, "images": images.iter().map(json).collect::<Vec<_>>() });
        print(format, &value, || match &images[..] {
            [] => format!("`{}` records no image\n", file.display()),
            images => images.iter().map(line).collect(),
        })
    }
}

fn json(image: &UpdatedImage) -> Value {
    let UpdatedImage { name, before, after } = image;
    json!({ "name": name, "before": before, "after": after })
}

fn line(image: &UpdatedImage) -> String {
    let UpdatedImage { name, before, after } = image;
    let after = short(after);
    match before.as_deref().map(short) {
        None => format!("recorded {name}: {after}\n"),
        Some(before) if before == after => format!("unchanged {name}: {after}\n"),
        Some(before) => format!("updated {name}: {before} -> {after}\n"),
    }
}

/// Returns the first digits, as Docker shows them.
fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_has_changed() {
        let [old, new] = ['1', '2'].map(|digit| format!("sha256:{}", digit.to_string().repeat(64)));
        let shown = |before: Option<&String>| {
            line(&UpdatedImage { name: "a.io/b:1".into(), before: before.cloned(), after: new.clone() })
        };
        assert_eq!(shown(None), "recorded a.io/b:1: sha256:222222222222\n");
        assert_eq!(shown(Some(&new)), "unchanged a.io/b:1: sha256:222222222222\n");
        assert_eq!(shown(Some(&old)), "updated a.io/b:1: sha256:111111111111 -> sha256:222222222222\n");
    }
}
