//! Measures the time to compile a crate of tests, beside the same tests under `#[tokio::test]`.
//!
//! Both crates are generated and linked with the library; their dependencies are built before. The
//! bodies are short, so that the cost of the attribute shows.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::figures::{Figures, Unit, median};

const TESTS: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attribute {
    SandboxedDb,
    TokioTest,
}

pub(crate) fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let place = tempfile::tempdir()?;
    let crates = [Attribute::SandboxedDb, Attribute::TokioTest]
        .map(|attribute| Generated::new(place.path(), attribute));
    for generated in &crates {
        generated.create()?;
        generated.build()?;
    }
    let (mut fresh, mut incremental) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 1..=if quick { 3 } else { 9 } {
        for (index, generated) in crates.iter().enumerate() {
            fs::remove_dir_all(place.path().join("target/debug/incremental"))?;
            generated.write(round)?;
            fresh[index].push(generated.build()?);
            generated.write(round + 1_000)?;
            incremental[index].push(generated.build()?);
        }
    }
    for (name, [ours, theirs]) in [("all", fresh), ("after an edit", incremental)] {
        let ratio = median(&ours).as_secs_f64() / median(&theirs).as_secs_f64();
        figures.distribution(&format!("compile {TESTS} tests, {name}"), ours);
        figures.distribution(&format!("compile {TESTS} of #[tokio::test], {name}"), theirs);
        figures.push(format!("compile, {name}: ratio of the two"), ratio, Unit::Count);
    }
    Ok(())
}

/// A generated crate of tests.
struct Generated {
    attribute: Attribute,
    directory: PathBuf,
    target: PathBuf,
}

impl Generated {
    fn new(place: &Path, attribute: Attribute) -> Self {
        let directory = place.join(format!("{attribute:?}").to_lowercase());
        Self { attribute, directory, target: place.join("target") }
    }

    fn create(&self) -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        fs::create_dir_all(self.directory.join("src"))?;
        fs::copy(root.join("Cargo.lock"), self.directory.join("Cargo.lock"))?;
        let manifest = format!(
            "[package]\nname = {:?}\nedition = \"2024\"\n[workspace]\n[dev-dependencies]\n\
             sandboxed-db = {{ path = {:?} }}\n\
             tokio = {{ version = \"1\", default-features = false, features = [\"macros\", \"rt-multi-thread\"] }}\n",
            format!("{:?}", self.attribute).to_lowercase(),
            root.join("sandbox"),
        );
        fs::write(self.directory.join("Cargo.toml"), manifest)?;
        self.write(0)
    }

    /// Writes the tests. The first test contains the number of the edit.
    fn write(&self, edit: usize) -> Result<()> {
        let mut source =
            String::from("#![cfg(test)]\nuse sandboxed_db::{Postgres, Sandbox, Snapshot, sandboxed_db};\n");
        source.push_str("fn fresh() -> Sandbox {\n    Snapshot::new(Postgres::new()).start().unwrap()\n}\n");
        source.push_str("#[sandboxed_db]\nfn both_use_the_library(_: &Sandbox) {\n    drop(fresh());\n}\n");
        for test in 0..TESTS {
            let (above, parameter, below) = match self.attribute {
                Attribute::SandboxedDb => ("#[sandboxed_db]", "url: String", ""),
                Attribute::TokioTest => {
                    ("#[tokio::test]", "", "let db = fresh();\n    let url = db.url().to_owned();")
                }
            };
            let edit = if test == 0 { edit } else { 0 };
            write!(
                source,
                "{above}\nasync fn test_{test}({parameter}) {{\n    {below}\n    \
                 let host = url.split_once(\"host=\").unwrap().1;\n    \
                 assert!(host.starts_with('/'), \"{{host}} {edit}\");\n    \
                 tokio::task::yield_now().await;\n    \
                 assert_eq!(url.len().min({test}), {test}.min(url.len()));\n}}\n"
            )?;
        }
        Ok(fs::write(self.directory.join("src/lib.rs"), source)?)
    }

    fn build(&self) -> Result<Duration> {
        let begin = Instant::now();
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["test", "--no-run", "--quiet"])
            .current_dir(&self.directory)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_INCREMENTAL", "1")
            .stderr(Stdio::null())
            .status()?;
        match status.success() {
            true => Ok(begin.elapsed()),
            false => Err(format!("the tests of {:?} do not compile", self.attribute).into()),
        }
    }
}
