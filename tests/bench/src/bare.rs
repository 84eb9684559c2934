//! An engine without a server, which measures the container alone.

use std::path::Path;

use sandboxed_db::engine::{
    Command, Dialect, FileRun, Installation, Mode, Ready, Scripts, Server, Signal, Sql,
};
use sandboxed_db::{Engine, Result};

#[derive(Debug, Clone)]
pub(crate) struct Bare;

impl Engine for Bare {
    fn name(&self) -> &str {
        "bare"
    }

    fn locate(&self) -> Result<Installation> {
        Installation::inspect(Path::new("/usr/bin"), "sleep", &[])
    }

    fn server(
        &self,
        installation: &Installation,
        _settings: &[(String, String)],
        _mode: Mode,
    ) -> Result<Server> {
        let command = Command::new(installation.program("sleep")).arg("infinity");
        let ready = Ready::Command(Command::new(installation.program("true")));
        Ok(Server::new(command, Signal::Terminate, ready).clean_signal(Signal::Terminate))
    }

    fn url(&self, root: &Path) -> Option<String> {
        Some(root.display().to_string())
    }
}

impl Scripts for Bare {
    fn run_file(&self, installation: &Installation, _run: &FileRun) -> Result<Command> {
        Ok(Command::new(installation.program("true")))
    }
}

impl Sql for Bare {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn request(&self, text: &str) -> String {
        text.to_owned()
    }
}
