//! A new engine: memcached, and the test that it keeps the contract of engines.
//!
//! ```sh
//! apt-get install memcached
//! cargo test -p sandboxed-db-examples --test memcached
//! ```

use std::path::Path;

use sandboxed_db::engine::{
    Command, Endpoint, Installation, Mode, Programs, Ready, SandboxPath, Server, Signal,
};
use sandboxed_db::{Engine, Result};

const SOCKET: &str = "/run/memcached.sock";

#[derive(Debug, Clone, Default)]
struct Memcached;

impl Engine for Memcached {
    fn name(&self) -> &'static str {
        "memcached"
    }

    fn locate(&self) -> Result<Installation> {
        Programs::new("memcached").package("memcached").find(None)
    }

    fn server(&self, installation: &Installation, settings: &[(String, String)], _: Mode) -> Result<Server> {
        let settings = settings.iter().map(|(name, value)| format!("--{name}={value}"));
        let command = Command::new(installation.server()).args(settings).arg("-s").path_arg(SOCKET);
        let ready = Ready::answer(Endpoint::Unix(SOCKET.into()), "version\r\n", "VERSION");
        Ok(Server::new(command, Signal::Terminate, ready).idle_memory(4_000_000))
    }

    fn url(&self, root: &Path) -> Option<String> {
        Some(format!("memcache://{}", SandboxPath::new(SOCKET).below(root).display()))
    }

    fn url_variable(&self) -> &'static str {
        "MEMCACHE_URL"
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Error, Write};
    use std::os::unix::net::UnixStream;

    use sandboxed_db::engine::conformance::Conformance;
    use sandboxed_db::{Sandbox, sandboxed_db};

    use super::*;

    /// Sends a command and returns the first line of the answer.
    fn ask(cache: &Sandbox<Memcached>, command: &str) -> std::result::Result<String, Error> {
        let mut stream = UnixStream::connect(SandboxPath::new(SOCKET).below(&cache.root()))?;
        stream.write_all(command.as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    #[sandboxed_db(engine = Memcached)]
    fn a_test_has_its_own_memcached(cache: Sandbox<Memcached>) {
        assert_eq!(ask(&cache, "set key 0 0 5\r\nvalue\r\n").unwrap(), "STORED");
        assert_eq!(ask(&cache, "get key\r\n").unwrap(), "VALUE key 0 5");
    }

    #[test]
    fn memcached_keeps_the_contract() {
        Conformance::new(Memcached)
            .reads(|cache| ask(cache, "get key\r\n"))
            .writes(|cache| ask(cache, "set key 0 0 5\r\nvalue\r\n").map(drop))
            .volatile()
            .setting("memory-limit", "32")
            .check_all()
            .unwrap();
    }
}
