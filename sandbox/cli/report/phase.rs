//! The phases of a sandbox's life.

use serde::Serialize;

/// A phase; they follow each other in this order.
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

    /// Returns its name, which is also its class in pictures.
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

    /// Describes it for the legend.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Layer => "finding or building the layer",
            Self::Queue => "waiting for a slot (SANDBOXED_DB_MAX)",
            Self::Launch => "creating namespaces and mounts",
            Self::Server => "waiting until the server is ready",
            Self::Connect => "making the test's parameters",
            Self::Test => "running the test",
            Self::End => "ending all processes",
        }
    }
}
