use sandboxed_db::{Postgres, Sandbox, Snapshot, sandboxed_db};

fn shop() -> Snapshot {
    Snapshot::new(Postgres::new())
}

#[sandboxed_db(version = [])]
fn of_none(_: Sandbox) {}

#[sandboxed_db(version = ["15", "17", "15"])]
fn of_one_twice(_: Sandbox) {}

#[sandboxed_db(version = ["15", latest, 16.4])]
fn of_what_is_none(_: Sandbox) {}

#[sandboxed_db(version = "15", version = "17")]
fn of_two(_: Sandbox) {}

#[sandboxed_db(engine = [Postgres, Postgres::new().database("shop")])]
fn of_one_name(_: Sandbox) {}

#[sandboxed_db(snapshot = shop, engine = Postgres)]
fn of_two_engines(_: Sandbox) {}

#[sandboxed_db(orders(version = ["15", "17"]))]
fn of_a_parameter(orders: Sandbox) {}

fn main() {}
