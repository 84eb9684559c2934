//! What the life of a sandbox consists of.

use serde::Serialize;

/// The phases, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    Layer,
    Queue,
    Launch,
    Server,
    Connect,
    Test,
    End,
}

impl Phase {
    pub(super) const ALL: [Self; 7] =
        [Self::Layer, Self::Queue, Self::Launch, Self::Server, Self::Connect, Self::Test, Self::End];

    /// Its name, which is also its class in pictures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Queue => "queue",
            Self::Launch => "launch",
            Self::Server => "server",
            Self::Connect => "connect",
            Self::Test => "test",
            Self::End => "end",
        }
    }

    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Layer => "finding the layer, or building it",
            Self::Queue => "waiting until so few sandboxes live that another may",
            Self::Launch => "namespaces, mounts, the root",
            Self::Server => "from the executed server to one that is ready",
            Self::Connect => "making the test's parameters",
            Self::Test => "the test has it",
            Self::End => "until the kernel has ended all processes",
        }
    }
}
