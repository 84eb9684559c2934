//! Kept states: data directories as tests left them, to inspect after a failure.
//!
//! ```text
//! <cache>/kept/<random>/data/         the data; files as in the layer are hard links to these
//! <cache>/kept/<random>/state.json    its test, and everything a server needs to start on it
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
