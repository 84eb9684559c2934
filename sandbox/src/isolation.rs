//! The isolation of a sandbox: a container, or on request a process of the host in a private
//! directory.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::cache;
use crate::engine::{Engine, Installation, Mode, TcpRequest};
use crate::environment::ISOLATION;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Signal;
use crate::launch::plan::ProcessMode;

/// The kinds of sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Namespaces, a separate root, a filter of system calls.
    Container,
    /// A process of the host.
    Process,
}

/// Returns the requested isolation if it is possible here.
pub(crate) fn wanted() -> Result<Isolation> {
    let isolation = match ISOLATION.word()? {
        Some("process") => Isolation::Process,
        _ => Isolation::Container,
    };
    if isolation == Isolation::Process && geteuid().is_root() {
        return Err(Error::new(ErrorKind::HostUnsupported, "start a server without a container as root")
            .caused_by("database servers refuse to run as root, and only a container gives them another user")
            .with_hint(format!("run the tests as another user, or without {}", ISOLATION.name)));
    }
    Ok(isolation)
}

/// Returns the hint for a user id without a name, as in some clusters: servers look the name up. A
/// container has one.
pub(crate) fn nameless_hint() -> Option<String> {
    let user = geteuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let is_named = users.lines().any(|line| line.split(':').nth(2) == Some(&user.to_string()));
    (!is_named).then(|| {
        format!("the user id {user} has no line in /etc/passwd: add one, or do without {}", ISOLATION.name)
    })
}

/// Returns the mode of a new sandbox. In process mode the address is this server's alone; there is
/// none if the engine has no TCP, or if another program has its port at all addresses.
pub(crate) fn mode<E: Engine>(engine: &E, installation: &Installation) -> Result<Mode> {
    if engine.is_opened_by_path() {
        return Ok(Mode::Process { address: None });
    }
    Ok(match wanted()? {
        Isolation::Container => Mode::Container,
        Isolation::Process => {
            let unset = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let root = Path::new("/");
            let unset =
                TcpRequest { installation, address: unset, password: "", root_certificate: None, root };
            let port = engine.tcp(&unset).map(|access| access.port);
            Mode::Process { address: port.and_then(free_loopback) }
        }
    })
}

/// Describes the surroundings of a server in process mode.
pub(crate) fn on_host<E: Engine>(
    engine: &E,
    installation: &Installation,
    address: Option<Ipv4Addr>,
    end_signal: Signal,
) -> Result<ProcessMode> {
    if let Some(image) = installation.image() {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("start `{}` of the image {} without a container", engine.name(), image.id()),
        )
        .caused_by("its programs find their libraries only in a container, whose root the image is")
        .with_hint("leave out `image`, or do without SANDBOXED_DB_ISOLATION=process"));
    }
    if installation.usr().len() > 1 {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("start the unpacked packages of `{}` without a container", engine.name()),
        )
        .caused_by("they find their files only in a container, where they lie in /usr")
        .with_hint("install them on the machine"));
    }
    let temporary = format!("sandboxed-db-{}", geteuid().as_raw());
    // The supervisor has another working directory.
    let directories = [std::env::temp_dir(), PathBuf::from("/tmp")];
    let directories = directories.iter().filter(|directory| directory.is_absolute());
    let short_parents: Vec<_> = directories.map(|directory| directory.join(&temporary)).collect();
    let mut parents = vec![cache::directory()?.join("processes")];
    parents.extend(short_parents.iter().cloned());
    Ok(ProcessMode {
        parents,
        short_parents,
        end_signal,
        loopback: address.unwrap_or(Ipv4Addr::LOCALHOST),
        listens: address.is_some(),
    })
}

/// Returns a random address of the host's loopback, one of millions, with a free port. `None` if a
/// program has the port at all addresses.
fn free_loopback(port: u16) -> Option<Ipv4Addr> {
    let mut bytes = [0; 3];
    getrandom(&mut bytes, GetRandomFlags::empty()).ok()?;
    // Excludes the addresses of the network and of broadcasts, and those near the beginning, which
    // people use.
    let [a, b, c] = bytes.map(|byte| byte.clamp(1, 254));
    let address = Ipv4Addr::new(127, a, b, c.max(2));
    TcpListener::bind((address, port)).ok().map(|_| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_the_loopback_and_its_port_free() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(free_loopback(port), None);
        drop(taken);
        assert!(free_loopback(port).unwrap().is_loopback());
    }
}
