//! A PostgreSQL server without a container, shared by peers or started for each test.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::Result;

/// The time in which a server must answer.
const DEADLINE: Duration = Duration::from_secs(60);
/// The time between two attempts. A refused connection to a Unix socket costs microseconds.
const PAUSE: Duration = Duration::from_millis(1);

/// The settings of a peer's servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Settings {
    /// Nothing is durable and data is in memory, as the peers recommend for tests.
    Fastest,
    /// PostgreSQL's defaults, with data on disk.
    AsInstalled,
}

impl Settings {
    /// Returns the names and values of the server's settings.
    pub(crate) fn configuration(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Fastest => &[
                ("fsync", "off"),
                ("synchronous_commit", "off"),
                ("full_page_writes", "off"),
                ("wal_level", "minimal"),
                ("max_wal_senders", "0"),
                ("autovacuum", "off"),
                ("checkpoint_timeout", "1h"),
                ("max_wal_size", "4GB"),
            ],
            Self::AsInstalled => &[],
        }
    }
}

/// A running server. Dropping it kills it and removes its data.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    directory: PathBuf,
}

impl Server {
    /// Initialises a cluster in `directory` and starts a server that listens on a Unix socket
    /// there. `command` returns the command for a program of PostgreSQL.
    pub(crate) fn start(
        command: &dyn Fn(&str) -> Command,
        directory: PathBuf,
        (settings, further): (Settings, &[(&str, &str)]),
        max_connections: u32,
    ) -> Result<Self> {
        let data = directory.join("data");
        let mut initdb = command("initdb");
        initdb.arg("--pgdata").arg(&data).args(["--auth=trust", "--username=postgres"]);
        initdb.args(["--encoding=UTF8", "--locale=C", "--no-instructions"]);
        if settings == Settings::Fastest {
            initdb.arg("--no-sync");
        }
        let output = initdb.output()?;
        if !output.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let mut server = command("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(&directory).args(["-c", "listen_addresses="]);
        server.arg("-c").arg(format!("max_connections={max_connections}"));
        for (name, value) in settings.configuration().iter().chain(further) {
            server.arg("-c").arg(format!("{name}={value}"));
        }
        let log = fs::File::create(directory.join("log"))?;
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = Self { process: server.spawn()?, directory };
        server.wait_ready()?;
        Ok(server)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = Client::connect(&self.url("postgres"), NoTls) {
            if let Some(status) = self.process.try_wait()? {
                let mut log = String::new();
                fs::File::open(self.directory.join("log"))?.read_to_string(&mut log)?;
                return Err(format!("postgres: {status}: {}", log.trim()).into());
            }
            if Instant::now() > deadline {
                return Err(error.into());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgresql:///{database}?host={}&user=postgres", self.directory.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT is the immediate shutdown, which ends child processes, too.
        let _ = kill_process(Pid::from_child(&self.process), Signal::QUIT);
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Connects to a server that may still be starting.
pub(crate) fn connect_soon(url: &str) -> Result<Client> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match Client::connect(url, NoTls) {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Runs the files of a directory in the order of their names.
pub(crate) fn load(client: &mut Client, directory: &Path) -> Result<()> {
    let mut files =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    for file in files {
        client.batch_execute(&fs::read_to_string(file)?)?;
    }
    Ok(())
}
