//! Kept states: data directories as tests left them, for a look at what went wrong.
//!
//! ```text
//! <cache>/kept/<random>/data/         the data directory; files as in the layer are hard links to the layer's
//! <cache>/kept/<random>/state.json    whose it is, and what a server needs to start on it
//! <cache>/kept/.<random>/             a state being written; garbage once it is older than that may take
//! ```

mod capture;
mod keeper;
mod policy;
mod start;
mod state;
mod store;

pub(crate) use keeper::{KeepContext, StateKeeper};
pub use policy::Keep;
pub(crate) use policy::wanted;
pub use state::KeptState;
pub use store::Kept;
