//! How long each part of a start took.

use std::fmt;
use std::time::Duration;

/// How long each part of a start took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// Finding the layer, and building it if it was not there.
    pub layer: Duration,
    /// Whether the layer had to be built, and was built by this start; not by another that this one waited for.
    pub layer_built: bool,
    /// Waiting until so few sandboxes live that another may.
    pub queue: Duration,
    /// Present if the sandbox was started ahead, by the [pool](crate::Snapshot::start): how long before it was handed over its
    /// server was executed. `launch` is then only what it took to know which one would do, and `server` how long a start
    /// that was in progress was waited for.
    pub pooled: Option<Duration>,
    /// Of the launch, deciding what the container is made of.
    pub plan: Duration,
    /// From the request to the executed server: the plan, namespaces, mounts, the root.
    pub launch: Duration,
    /// From the executed server to a server that is ready.
    pub server: Duration,
    /// Making the test's parameters of the ready server, those that are made so far: a pool's first connection, a port's
    /// password. Zero for a test that takes the handle only, and outside of `#[sandboxed_db]`.
    pub connect: Duration,
}

impl Timings {
    /// The whole start, from the request to a test that can begin: the sum of all parts, of which the launch holds the plan.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.layer + self.queue + self.launch + self.server + self.connect
    }
}

/// In one line: `26.1 ms: layer 0.4 ms, queue 0.0 ms, launch 2.9 ms, server 18.2 ms, connect 4.6 ms`.
impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        let Self { layer, layer_built, queue, pooled, plan: _, launch, server, connect } = *self;
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
            Some(ago) => write!(f, "; started ahead, {} before", ms(ago)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_told_in_one_line() {
        let ms = Duration::from_millis;
        let timings = Timings {
            layer: ms(300),
            layer_built: true,
            queue: Duration::from_micros(40),
            pooled: None,
            plan: ms(1),
            launch: ms(3),
            server: ms(18),
            connect: ms(5),
        };
        assert_eq!(timings.total(), Duration::from_micros(326_040));
        assert_eq!(
            timings.to_string(),
            "326.0 ms: layer 300.0 ms (built), queue 0.0 ms, launch 3.0 ms, server 18.0 ms, connect 5.0 ms"
        );
        let pooled = Timings { pooled: Some(ms(70)), ..timings }.to_string();
        assert_eq!(pooled, format!("{timings}; started ahead, 70.0 ms before"));
    }
}
