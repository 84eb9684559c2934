//! Starts a database for each scenario of another test runner.
//!
//! The hook before a scenario starts the database, and the scenario's world holds it until the end.
//! A scenario is a file in `scenarios/`. With cucumber the hook is `#[world(init = Self::new)]`.
//! libtest-mimic makes a runner that takes the arguments of `cargo test` and nextest.
//!
//! Run it by `cargo test -p sandboxed-db-examples --features scenarios --test scenarios`.

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
            world.run(&fs::read_to_string(file)?)
        }));
    }
    Ok(libtest_mimic::run(&arguments, scenarios).exit_code())
}

/// The state of one scenario. Fields are dropped in this order.
struct World {
    client: Client,
    _db: Sandbox,
}

impl World {
    /// Runs before each scenario. A `Drop` would run after it.
    fn new() -> Result<Self, Box<dyn Error>> {
        let db = Snapshot::new(Postgres::new()).seed("orders.sql").start()?;
        Ok(Self { client: Client::connect(db.url(), NoTls)?, _db: db })
    }

    /// Runs the statements, and below `-- then` the queries, which must return true.
    fn run(&mut self, scenario: &str) -> Result<(), Failed> {
        let (statements, queries) =
            scenario.split_once("-- then\n").ok_or("the scenario has no line `-- then`")?;
        self.client.batch_execute(statements)?;
        for query in queries.split_terminator(";\n") {
            if !self.client.query_one(query, &[])?.get::<_, bool>(0) {
                return Err(format!("false: {query}").into());
            }
        }
        Ok(())
    }
}
