//! How do I give each scenario of my own test runner a database?
//!
//! Make it in the hook that runs before a scenario, and keep it in the scenario's world: it ends when that is dropped. Here
//! a scenario is a file in `scenarios/`; with cucumber the hook is `#[world(init = Self::new)]`. libtest-mimic makes a
//! runner that understands the arguments of `cargo test` and nextest.
//!
//! Run it with `cargo test -p sandboxed-db-examples --features scenarios --test scenarios`.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use postgres::{Client, NoTls};
use sandboxed_db::{Postgres, Sandbox, Snapshot};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::from_args();
    let mut scenarios = Vec::new();
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios"))? {
        let file = file?.path();
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        scenarios.push(Trial::test(name, move || {
            let mut world = World::new()?;
            world.play(&fs::read_to_string(file)?)
        }));
    }
    Ok(libtest_mimic::run(&arguments, scenarios).exit_code())
}

/// All that belongs to one scenario, in the order in which it is dropped.
struct World {
    client: Client,
    _db: Sandbox,
}

impl World {
    /// The hook before each scenario. What is to come after each goes into its `Drop`.
    fn new() -> Result<Self, Box<dyn Error>> {
        let db = Snapshot::new(Postgres::new()).seed("orders.sql").start()?;
        Ok(Self { client: Client::connect(db.url(), NoTls)?, _db: db })
    }

    /// What happens, and below `-- then` what must be so: queries that answer with true.
    fn play(&mut self, scenario: &str) -> Result<(), Failed> {
        let (happens, must_be) = scenario.split_once("-- then\n").ok_or("it has no `-- then`")?;
        self.client.batch_execute(happens)?;
        for query in must_be.split_terminator(";\n") {
            if !self.client.query_one(query, &[])?.get::<_, bool>(0) {
                return Err(format!("not so: {query}").into());
            }
        }
        Ok(())
    }
}
