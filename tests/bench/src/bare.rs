//! An engine without a server, which measures the container alone.

use std::io;
use std::path::Path;

use sandboxed_db::engine::{Command, FileRun, Installation, Mode, SandboxPath, ScriptError, Server, Signal};
use sandboxed_db::{Engine, Result};

#[derive(Debug, Clone)]
pub(crate) struct Bare;

impl Engine for Bare {
    fn name(&self) -> &'static str {
        "bare"
    }

    fn locate(&self) -> Result<Installation> {
        Installation::inspect(Path::new("/usr/bin"), "sleep", &[])
    }

    fn identity(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn data_dir(&self) -> SandboxPath {
        "/data".into()
    }

    fn initialise(&self, installation: &Installation) -> Command {
        Command::new(installation.program("touch")).arg("/data/file")
    }

    fn server(
        &self,
        installation: &Installation,
        _settings: &[(String, String)],
        _mode: Mode,
    ) -> Result<Server> {
        // A layer is stored only if its server shut down cleanly, which means with exit status 0.
        let script = "trap 'exit 0' TERM; : > /run/ready; sleep infinity & wait";
        let command = Command::new(installation.program("sh")).args(["-c", script]).env("PATH", "/usr/bin");
        Ok(Server::new(command, Signal::Terminate))
    }

    fn is_ready(&self, root: &Path) -> bool {
        root.join("run/ready").exists()
    }

    fn client(&self, installation: &Installation) -> Result<Command> {
        Ok(Command::new(installation.program("sh")))
    }

    fn run_file(&self, installation: &Installation, _run: &FileRun) -> Result<Command> {
        self.client(installation)
    }

    fn included_files(&self, _contents: &str) -> Vec<String> {
        Vec::new()
    }

    fn script_error(&self, _stderr: &str) -> ScriptError {
        ScriptError::default()
    }

    fn tidy(&self, _data: &Path) -> io::Result<()> {
        Ok(())
    }

    fn url(&self, root: &Path) -> String {
        root.display().to_string()
    }
}
