//! The duration of each part of a start.

use std::fmt;
use std::time::Duration;

use crate::launch::ProcessOrigin;

/// How a server was started; [`SANDBOXED_DB_START`](crate::environment) chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerStart {
    /// The server's program was executed.
    #[default]
    Executed,
    /// The server was restored from the image of its linked program.
    Linked,
    /// The server was resumed from a checkpoint of a ready one.
    Resumed,
}

impl From<&ProcessOrigin> for ServerStart {
    fn from(origin: &ProcessOrigin) -> Self {
        match origin {
            ProcessOrigin::Resumed => Self::Resumed,
            ProcessOrigin::Linked => Self::Linked,
            ProcessOrigin::Executed(_) => Self::Executed,
        }
    }
}

/// The duration of each part of a start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// The time to find or build the layer.
    pub layer: Duration,
    /// `true` if this start built the layer; `false` if it found the layer, or waited for another
    /// start to build it.
    pub layer_built: bool,
    /// The wait for a slot.
    pub queue: Duration,
    /// Present if the sandbox was prewarmed by the [pool](crate::Snapshot::start): the age of its
    /// server when it was handed over. `launch` is then the time to find it, and `server` the wait
    /// for a start in progress.
    pub pooled: Option<Duration>,
    /// The part of `launch` that decides the container's plan.
    pub plan: Duration,
    /// The time from the request to the executed server: the plan, namespaces, mounts, the root.
    pub launch: Duration,
    /// The time from the executed server to a ready one.
    pub server: Duration,
    /// How the server was started.
    pub start: ServerStart,
    /// The time to make the test's parameters that are made so far, such as a pool's first
    /// connection or a port's password. Zero for a test that takes only the handle, and outside of
    /// `#[sandboxed_db]`.
    pub connect: Duration,
}

impl Timings {
    /// Returns the duration of the whole start, from the request to a test that can begin.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.layer + self.queue + self.launch + self.server + self.connect
    }
}

/// Prints one line: `26.1 ms: layer 0.4 ms, queue 0.0 ms, launch 2.9 ms, server 18.2 ms, connect
/// 4.6 ms`.
impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        let Self { layer, layer_built, queue, pooled, plan: _, launch, server, start: _, connect } = *self;
        let built = if layer_built { " (built)" } else { "" };
        write!(
            f,
            "{}: layer {}{built}, queue {}, launch {}, server {}, connect {}",
            ms(self.total()),
            ms(layer),
            ms(queue),
            ms(launch),
            ms(server),
            ms(connect)
        )?;
        match pooled {
            None => Ok(()),
            Some(ago) => write!(f, "; prewarmed, {} old", ms(ago)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_print_in_one_line() {
        let ms = Duration::from_millis;
        let timings = Timings {
            layer: ms(300),
            layer_built: true,
            queue: Duration::from_micros(40),
            pooled: None,
            plan: ms(1),
            launch: ms(3),
            server: ms(18),
            start: ServerStart::Linked,
            connect: ms(5),
        };
        assert_eq!(timings.total(), Duration::from_micros(326_040));
        assert_eq!(
            timings.to_string(),
            "326.0 ms: layer 300.0 ms (built), queue 0.0 ms, launch 3.0 ms, server 18.0 ms, connect 5.0 ms"
        );
        let pooled = Timings { pooled: Some(ms(70)), ..timings }.to_string();
        assert_eq!(pooled, format!("{timings}; prewarmed, 70.0 ms old"));
    }
}
