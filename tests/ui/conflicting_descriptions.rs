use sandboxed_db::{Postgres, Sandbox, Snapshot, sandboxed_db};

fn shop() -> Snapshot {
    Snapshot::new(Postgres::new())
}

#[sandboxed_db(snapshot = shop, snapshot = shop)]
fn by_two_snapshots(_: Sandbox) {}

#[sandboxed_db(db(snapshot = shop), db(migrations = "migrations"))]
fn by_two_lists(db: Sandbox) {}

#[sandboxed_db(snapshot = shop, db(snapshot = shop))]
fn beside_its_list(db: Sandbox) {}

fn main() {}
