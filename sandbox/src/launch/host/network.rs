//! The ports of a container's loopback.

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::container::Container;
use super::error::Result;
use super::lock;
use crate::error::{Error, ErrorKind};
use crate::launch::protocol::Request;

/// The deadline for init to start a forwarder, which takes less than a millisecond.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

impl Container {
    /// Has connections to these listeners forwarded to a port of the container's loopback, for the
    /// container's life.
    ///
    /// The container gets the listeners: once closed here they end with it.
    pub(crate) fn forward(&self, listeners: &[TcpListener], port: u16) -> Result<()> {
        let listeners: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        let deadline = Instant::now() + FORWARD_TIMEOUT;
        let mut control = lock(&self.control);
        control.forwarding = None;
        control.request(&Request::Forward { port }, &listeners)?;
        let late = || {
            Error::new(ErrorKind::Control, "start a process that forwards TCP in the sandbox")
                .caused_by(format!("init did not answer within {FORWARD_TIMEOUT:?}"))
        };
        control.wait_for(deadline, late, |control| control.forwarding.filter(|it| *it == port).map(drop))
    }

    /// Returns `true` if a socket listens on this port of the container's loopback,
    /// proc_pid_net(5). `true` where that is unknown.
    pub(crate) fn listens(&self, port: u16) -> bool {
        if let Some((mode, _)) = &self.process_mode {
            return mode.listens;
        }
        let tables = ["tcp", "tcp6"].map(|name| format!("/proc/{}/net/{name}", self.pid()));
        let listens = |table: &str| table.lines().any(|line| listening_port(line) == Some(port));
        tables.iter().filter_map(|table| fs::read_to_string(table).ok()).any(|table| listens(&table))
            || tables.iter().all(|table| fs::read_to_string(table).is_err())
    }
}

/// Returns the port of a listening socket's line: number, `address:port` in hexadecimal, the
/// peer's, state.
fn listening_port(line: &str) -> Option<u16> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    (fields.nth(1)? == LISTEN).then(|| u16::from_str_radix(port, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_ports_are_recognised() {
        let listening =
            "   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 1 1";
        assert_eq!(listening_port(listening), Some(5432));
        assert_eq!(listening_port(&listening.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening_port("  sl  local_address rem_address   st tx_queue rx_queue"), None);
    }
}
