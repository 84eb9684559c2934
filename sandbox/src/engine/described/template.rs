//! Texts of a description with placeholders in braces, such as `{socket}`.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::launch::SandboxPath;

/// The place of a template, which decides its placeholders.
pub(super) trait Scope: Clone + PartialEq + std::fmt::Debug {
    /// Names of values.
    const VALUES: &'static [&'static str];
}

macro_rules! places {
    ($($(#[$doc:meta])* $name:ident, $values:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq)]
            pub(super) struct $name;

            impl Scope for $name {
                const VALUES: &'static [&'static str] = &$values;
            }
        )*
    };
}

places! {
    /// Arguments and variables of programs in the sandbox.
    Inside, ["data", "socket", "port", "listen"];
    /// Arguments of the client that runs a seed.
    OfSeed, ["data", "socket", "port", "listen", "file"];
    /// Arguments of the program that sets a password.
    OfPassword, ["data", "socket", "port", "listen", "password"];
    /// A setting as an argument or a line.
    OfSetting, ["name", "value"];
    /// Addresses for clients that know the sandbox's root.
    Outside, ["data", "socket"];
    /// Addresses for clients of a port.
    OfPort, ["address", "host", "port", "password"];
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(String),
    Path(SandboxPath),
}

/// A text with placeholders: names of values, and paths in the sandbox such as `{/run/x.sock}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String", bound = "")]
pub(super) struct Template<P: Scope> {
    text: String,
    pieces: Vec<Piece>,
    place: PhantomData<P>,
}

/// The values of placeholders.
pub(super) trait Values {
    fn text(&self, name: &str) -> Option<String>;
    fn path(&self, name: &str) -> Option<SandboxPath>;
}

/// A word of a command: text, or a path in the sandbox after a prefix.
pub(super) enum Word {
    Text(String),
    Path(String, SandboxPath),
}

impl<P: Scope> From<Template<P>> for String {
    fn from(template: Template<P>) -> Self {
        template.text
    }
}

impl<P: Scope> TryFrom<String> for Template<P> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        let mut plain = String::new();
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            // A brace that is meant is written twice.
            if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let name = after.split_once('}').filter(|_| brace == "{");
            let (name, after) = name.ok_or_else(|| format!("a brace in `{text}` is alone: write `{{{{`"))?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece::<P>(name)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self { text, pieces, place: PhantomData })
    }
}

fn piece<P: Scope>(name: &str) -> Result<Piece, String> {
    if P::VALUES.contains(&name) {
        return Ok(Piece::Value(name.to_owned()));
    }
    if name.starts_with('/') && P::VALUES.contains(&"data") {
        return Ok(Piece::Path(SandboxPath::new(name)));
    }
    let mut choices: Vec<_> = P::VALUES.iter().map(|name| format!("`{{{name}}}`")).collect();
    if P::VALUES.contains(&"data") {
        choices.push("a path in the sandbox such as `{/run/x}`".to_owned());
    }
    Err(format!("unknown placeholder `{{{name}}}`, expected one of {}", choices.join(", ")))
}

impl<P: Scope> Template<P> {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Returns `true` if the text has the placeholder.
    pub(super) fn has(&self, name: &str) -> bool {
        self.pieces.contains(&Piece::Value(name.to_owned()))
    }

    /// Fills in the values; paths are those below a root.
    ///
    /// # Errors
    /// The name of a value that is missing.
    pub(super) fn fill(&self, values: &dyn Values, root: &Path) -> Result<String, String> {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Value(name) => match (values.text(name), values.path(name)) {
                    (Some(text), _) => filled.push_str(&text),
                    (None, Some(path)) => filled.push_str(&path.below(root).to_string_lossy()),
                    (None, None) => return Err(name.clone()),
                },
                Piece::Path(path) => filled.push_str(&path.below(root).to_string_lossy()),
            }
        }
        Ok(filled)
    }

    /// Fills in the values of a word, in which a path is translated where the sandbox has no root.
    ///
    /// # Errors
    /// The name of a value that is missing, or a path that something else follows.
    pub(super) fn word(&self, values: &dyn Values) -> Result<Word, String> {
        let mut text = String::new();
        let mut path: Option<SandboxPath> = None;
        for piece in &self.pieces {
            let found = match piece {
                Piece::Text(more) => Err(more.clone()),
                Piece::Path(path) => Ok(path.clone()),
                Piece::Value(name) => match (values.path(name), values.text(name)) {
                    (Some(path), _) => Ok(path),
                    (None, Some(text)) => Err(text),
                    (None, None) => return Err(format!("`{{{name}}}` in `{}` has no value", self.text)),
                },
            };
            let alone = || format!("in `{}` only the rest of a path may follow a path", self.text);
            match (found, &mut path) {
                (Ok(found), None) => path = Some(found),
                (Err(more), None) => text.push_str(&more),
                (Err(more), Some(before)) if more.starts_with('/') => {
                    *before = before.join(more.trim_start_matches('/'));
                }
                _ => return Err(alone()),
            }
        }
        Ok(match path {
            Some(path) => Word::Path(text, path),
            None => Word::Text(text),
        })
    }
}

/// The values of a setting.
pub(super) struct Setting<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
}

impl Values for Setting<'_> {
    fn text(&self, name: &str) -> Option<String> {
        match name {
            "name" => Some(self.name.to_owned()),
            "value" => Some(self.value.to_owned()),
            _ => None,
        }
    }

    fn path(&self, _: &str) -> Option<SandboxPath> {
        None
    }
}

/// A path of the sandbox that a description names: absolute, and without steps back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "PathBuf", into = "PathBuf")]
pub(super) struct Absolute(pub(super) PathBuf);

impl From<Absolute> for PathBuf {
    fn from(path: Absolute) -> Self {
        path.0
    }
}

impl TryFrom<PathBuf> for Absolute {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, String> {
        let mut parts = path.components();
        let is_plain = path.is_absolute()
            && parts.all(|part| !matches!(part, std::path::Component::ParentDir))
            && path.parent().is_some();
        is_plain
            .then(|| Self(path.clone()))
            .ok_or_else(|| format!("`{}` is no absolute path below the root of the sandbox", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Some7;

    impl Values for Some7 {
        fn text(&self, name: &str) -> Option<String> {
            (name == "port").then(|| "7".to_owned())
        }

        fn path(&self, name: &str) -> Option<SandboxPath> {
            (name == "data").then(|| "/data".into())
        }
    }

    fn template<P: Scope>(text: &str) -> Result<Template<P>, String> {
        text.to_owned().try_into()
    }

    fn word(text: &str) -> String {
        match template::<Inside>(text).and_then(|template| template.word(&Some7)) {
            Ok(Word::Text(text)) => text,
            Ok(Word::Path(prefix, path)) => format!("{prefix}|{}", path.as_path().display()),
            Err(error) => error,
        }
    }

    #[test]
    fn placeholders_become_text_and_paths() {
        assert_eq!(word("--port={port}"), "--port=7");
        assert_eq!(word("--dir={data}/wal"), "--dir=|/data/wal");
        assert_eq!(word("{/run/x.sock}"), "|/run/x.sock");
        assert_eq!(word("a{{b}}"), "a{b}");
        let url = template::<Outside>("x://{/run/x.sock}?y={data}").unwrap();
        assert_eq!(
            url.fill(&Some7, Path::new("/proc/1/root")).unwrap(),
            "x:///proc/1/root/run/x.sock?y=/proc/1/root/data"
        );
    }

    #[test]
    fn a_mistake_in_a_text_names_the_choices() {
        assert!(
            word("{dta}").starts_with("unknown placeholder `{dta}`, expected one of `{data}`, `{socket}`")
        );
        assert!(word("{data},x").contains("only the rest of a path"));
        assert!(word("a}").contains("a brace in `a}` is alone") && word("{data").contains("alone"));
        assert!(word("{socket}").contains("`{socket}` in `{socket}` has no value"));
        assert!(template::<OfPort>("{/run/x}").unwrap_err().contains("`{address}`"));
        assert!(Absolute::try_from(PathBuf::from("/a/../b")).is_err());
        assert!(
            Absolute::try_from(PathBuf::from("a")).is_err()
                && Absolute::try_from(PathBuf::from("/")).is_err()
        );
    }
}
