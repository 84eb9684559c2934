//! The sign of a ready server, as a description has it.

use serde::{Deserialize, Serialize};

use super::forms::CommandLine;
use super::template::{Absolute, Inside};

/// The sign by which a server counts as ready.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SignForm", into = "SignForm")]
pub(super) struct Sign {
    /// The server reports it by sd_notify(3).
    pub(super) notify: bool,
    /// Another socket or port than that of the server.
    pub(super) socket: Option<Absolute>,
    pub(super) port: Option<u16>,
    pub(super) look: Look,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Look {
    /// A connection is accepted.
    #[default]
    Connect,
    Answer {
        send: String,
        expect: String,
        end: String,
    },
    Http {
        path: String,
        status: u16,
    },
    Command(CommandLine<Inside>),
}

/// A sign as written.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignForm {
    #[serde(default)]
    notify: bool,
    #[serde(default)]
    socket: Option<Absolute>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    send: Option<String>,
    #[serde(default)]
    expect: Option<String>,
    #[serde(default)]
    end: Option<String>,
    #[serde(default)]
    http: Option<String>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    command: Option<CommandLine<Inside>>,
}

impl TryFrom<SignForm> for Sign {
    type Error = &'static str;

    fn try_from(form: SignForm) -> Result<Self, Self::Error> {
        let SignForm { notify, socket, port, send, expect, end, http, status, command } = form;
        if socket.is_some() && port.is_some() {
            return Err("a sign is looked for at a `socket` or at a `port`, not at both");
        }
        let talks = send.is_some() || end.is_some();
        let look = match (expect, http, command) {
            (None, None, None) if !talks && status.is_none() => Look::Connect,
            (Some(expect), None, None) if status.is_none() => {
                Look::Answer { send: send.unwrap_or_default(), expect, end: end.unwrap_or_default() }
            }
            (None, Some(path), None) if !talks && path.starts_with('/') => {
                Look::Http { path, status: status.unwrap_or(200) }
            }
            (None, Some(_), None) if !talks => return Err("`http` is a path that begins with `/`"),
            (None, None, Some(command))
                if !talks && status.is_none() && socket.is_none() && port.is_none() =>
            {
                Look::Command(command)
            }
            _ => {
                return Err(
                    "a sign is one of: `notify = true`; a connection at `socket` or `port`; there an answer that \
                            holds `expect`, to `send`, before `end`; the `status` of `http = \"/path\"`; the success of \
                            a `command`",
                );
            }
        };
        Ok(Self { notify, socket, port, look })
    }
}

impl From<Sign> for SignForm {
    fn from(Sign { notify, socket, port, look }: Sign) -> Self {
        let form = Self { notify, socket, port, ..Self::default() };
        match look {
            Look::Connect => form,
            Look::Answer { send, expect, end } => {
                Self { send: Some(send), expect: Some(expect), end: Some(end), ..form }
            }
            Look::Http { path, status } => Self { http: Some(path), status: Some(status), ..form },
            Look::Command(command) => Self { command: Some(command), ..form },
        }
    }
}
