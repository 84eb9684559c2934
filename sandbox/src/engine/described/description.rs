//! The parts of a description, as a file of TOML has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::forms::{CommandLine, SignalName, Texts, VersionArg};
use super::sign::Sign;
use super::template::{Absolute, Inside, OfPassword, OfPort, OfSeed, OfSetting, Outside, Template};

/// The parts of a server that [`Described`](super::Described) starts, as a builder in place of a
/// file of TOML. Each method has the name and the meaning of a [key](super::Described#keys), and
/// texts have the same placeholders.
///
/// # Example
/// ```
/// use sandboxed_db::engine::{Described, Description};
/// # fn main() -> sandboxed_db::Result<()> {
/// let memcached = Description::new("memcached", "memcached")
///     .args(["--unix-socket={socket}"])
///     .socket("/run/memcached.sock")
///     .answers("version\r\n", "VERSION")
///     .url("memcache://{socket}");
/// let engine = Described::new(memcached)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The first mistake of a builder.
    #[serde(skip)]
    pub(super) mistake: Option<String>,
    pub(super) name: String,
    pub(super) program: Texts,
    #[serde(default)]
    pub(super) program_directories: Vec<Absolute>,
    #[serde(default)]
    pub(super) variable: Option<String>,
    #[serde(default)]
    pub(super) version: VersionArg,
    #[serde(default)]
    pub(super) package: Option<String>,
    #[serde(default)]
    pub(super) args: Vec<Template<Inside>>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, Template<Inside>>,
    #[serde(default = "data")]
    pub(super) data: Absolute,
    #[serde(default = "account")]
    pub(super) account: String,
    #[serde(default)]
    pub(super) socket: Option<Absolute>,
    #[serde(default)]
    pub(super) port: Option<u16>,
    #[serde(default)]
    pub(super) ready: Sign,
    #[serde(default)]
    pub(super) stop_signal: SignalName,
    #[serde(default)]
    pub(super) clean_statuses: Vec<i32>,
    #[serde(default)]
    pub(super) clean_signals: Vec<SignalName>,
    #[serde(default)]
    pub(super) initialise: Option<CommandLine<Inside>>,
    #[serde(default)]
    pub(super) directories: Vec<Absolute>,
    #[serde(default)]
    pub(super) files: BTreeMap<Absolute, String>,
    #[serde(default)]
    pub(super) settings: Option<Settings>,
    #[serde(default)]
    pub(super) seed: Option<Seed>,
    #[serde(default)]
    pub(super) url: Option<Template<Outside>>,
    #[serde(default = "url_variable")]
    pub(super) url_variable: String,
    #[serde(default)]
    pub(super) client_env: BTreeMap<String, Template<Outside>>,
    #[serde(default)]
    pub(super) client_variables: Vec<String>,
    #[serde(default)]
    pub(super) tcp: Option<TcpPart>,
    #[serde(default)]
    pub(super) checkpoint: Option<CheckpointPart>,
    #[serde(default)]
    pub(super) idle_memory: Option<u64>,
    #[serde(default)]
    pub(super) processes: Option<u32>,
}

pub(super) fn data() -> Absolute {
    Absolute("/data".into())
}

pub(super) fn account() -> String {
    "server".to_owned()
}

pub(super) fn url_variable() -> String {
    "DATABASE_URL".to_owned()
}

/// The way of a setting into the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SettingsForm", into = "SettingsForm")]
pub(super) struct Settings {
    pub(super) way: SettingForm,
    pub(super) defaults: BTreeMap<String, String>,
    pub(super) fixed: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum SettingForm {
    /// Arguments of the server.
    Args(Vec<Template<OfSetting>>),
    /// A line at the end of a file.
    Line(Absolute, Template<OfSetting>),
}

/// Settings as written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsForm {
    #[serde(default)]
    args: Vec<Template<OfSetting>>,
    #[serde(default)]
    file: Option<Absolute>,
    #[serde(default)]
    line: Option<Template<OfSetting>>,
    #[serde(default)]
    defaults: BTreeMap<String, String>,
    #[serde(default)]
    fixed: Vec<String>,
}

impl TryFrom<SettingsForm> for Settings {
    type Error = &'static str;

    fn try_from(form: SettingsForm) -> Result<Self, Self::Error> {
        let SettingsForm { args, file, line, defaults, fixed } = form;
        let way = match (file, line) {
            (None, None) if !args.is_empty() => SettingForm::Args(args),
            (Some(file), Some(line)) if args.is_empty() => SettingForm::Line(file, line),
            _ => return Err("a setting becomes `args`, or a `line` of a `file`: write the one or the other"),
        };
        Ok(Self { way, defaults, fixed })
    }
}

impl From<Settings> for SettingsForm {
    fn from(Settings { way, defaults, fixed }: Settings) -> Self {
        let (args, file, line) = match way {
            SettingForm::Args(args) => (args, None, None),
            SettingForm::Line(file, line) => (Vec::new(), Some(file), Some(line)),
        };
        Self { args, file, line, defaults, fixed }
    }
}

/// The client that runs seeds, and the look of its failures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seed {
    pub(super) command: CommandLine<OfSeed>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, Template<Inside>>,
    #[serde(default)]
    pub(super) before: String,
    #[serde(default)]
    pub(super) after: String,
    #[serde(default)]
    pub(super) expect: String,
    #[serde(default)]
    pub(super) failure: Texts,
    #[serde(default)]
    pub(super) line: Option<String>,
}

/// The server's port, for clients outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TcpPart {
    pub(super) url: Template<OfPort>,
    pub(super) password: Password,
    #[serde(default)]
    pub(super) env: BTreeMap<String, Template<OfPort>>,
}

/// The way to a password for clients of the port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected `false`, or the command that sets the password as a list")]
pub(super) enum Password {
    /// `false`: the server asks nobody.
    Never(Never),
    SetBy(CommandLine<OfPassword>),
}

/// `false`, written out so that an open port or a shared secret is never an oversight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "bool", into = "bool")]
pub(super) struct Never;

impl TryFrom<bool> for Never {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<Self, Self::Error> {
        if value { Err("expected `false`") } else { Ok(Self) }
    }
}

impl From<Never> for bool {
    fn from(_: Never) -> Self {
        false
    }
}

/// Servers are resumed from checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointPart {
    pub(super) shares: Shares,
    #[serde(default)]
    pub(super) client: Option<CommandLine<Inside>>,
}

/// The values that servers of one checkpoint share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected `false`, or what resumed servers share as a string")]
pub(super) enum Shares {
    /// `false`: none that differ between started ones.
    Nothing(Never),
    Values(String),
}
