//! Values of a description that are written in one of several forms.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::template::{Scope, Template};
use crate::launch::Signal;

/// A text, or a list of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Texts(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>", bound = "")]
pub(super) struct CommandLine<P: Scope> {
    pub(super) program: String,
    pub(super) args: Vec<Template<P>>,
    place: PhantomData<P>,
}

impl<P: Scope> TryFrom<Vec<String>> for CommandLine<P> {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Self, String> {
        let mut words = words.into_iter();
        let program = words.next().filter(|program| !program.is_empty());
        let program = program.ok_or("expected a program and its arguments, as a list")?;
        Ok(Self {
            program,
            args: words.map(Template::try_from).collect::<Result<_, _>>()?,
            place: PhantomData,
        })
    }
}

impl<P: Scope> From<CommandLine<P>> for Vec<String> {
    fn from(line: CommandLine<P>) -> Self {
        std::iter::once(line.program).chain(line.args.into_iter().map(String::from)).collect()
    }
}

/// A signal by its name, with or without `SIG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct SignalName(pub(super) Signal);

const SIGNALS: [(&str, Signal); 7] = [
    ("HUP", Signal::Hangup),
    ("INT", Signal::Interrupt),
    ("QUIT", Signal::Quit),
    ("KILL", Signal::Kill),
    ("USR1", Signal::User1),
    ("USR2", Signal::User2),
    ("TERM", Signal::Terminate),
];

impl Default for SignalName {
    fn default() -> Self {
        Self(Signal::Terminate)
    }
}

impl TryFrom<String> for SignalName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let short = name.trim_start_matches("SIG");
        let found = SIGNALS.into_iter().find(|(known, _)| *known == short);
        found.map(|(_, signal)| Self(signal)).ok_or_else(|| {
            let names: Vec<_> = SIGNALS.iter().map(|(name, _)| format!("`{name}`")).collect();
            format!("unknown signal `{name}`, expected one of {}", names.join(", "))
        })
    }
}

impl From<SignalName> for String {
    fn from(SignalName(signal): SignalName) -> Self {
        let name = SIGNALS.into_iter().find(|(_, known)| *known == signal);
        name.map(|(name, _)| name.to_owned()).unwrap_or_default()
    }
}

/// The argument for which the server prints its version; `false` for none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "String")]
pub(super) struct VersionArg(pub(super) Option<String>);

impl Default for VersionArg {
    fn default() -> Self {
        Self(Some("--version".to_owned()))
    }
}

impl From<VersionArg> for String {
    fn from(VersionArg(arg): VersionArg) -> Self {
        arg.unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for VersionArg {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrFalse;

        impl Visitor<'_> for TextOrFalse {
            type Value = VersionArg;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an argument as a string, or `false` for a server without a version")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<VersionArg, E> {
                Ok(VersionArg(Some(text.to_owned()).filter(|text| !text.is_empty())))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<VersionArg, E> {
                match value {
                    false => Ok(VersionArg(None)),
                    true => Err(E::invalid_value(de::Unexpected::Bool(true), &self)),
                }
            }
        }

        deserializer.deserialize_any(TextOrFalse)
    }
}
