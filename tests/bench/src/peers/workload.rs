//! The contents of a database before a test, as files of SQL for every contestant, and the query of
//! a test.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The number of migrations in [`Workload::Migrations`]: [`STAGES`] for each of [`AREAS`].
const MIGRATIONS: usize = AREAS.len() * STAGES.len();
const AREAS: [&str; 8] =
    ["customer", "product", "warehouse", "shipment", "invoice", "payment", "review", "campaign"];
/// The migrations of one area of a web shop. `{area}` is its name, `{before}` the area that it
/// references.
const STAGES: [(&str, &str); 5] = [
    (
        "create",
        "create table {area} (
    id bigint generated always as identity primary key,
    name text not null,
    {before}_id bigint references {before} (id),
    attributes jsonb not null default '{}',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table {area} is 'All of {area}, past and present';
",
    ),
    (
        "index",
        "create unique index {area}_name on {area} (lower(name));
create index {area}_attributes on {area} using gin (attributes);
create index {area}_recent on {area} (created_at) where created_at > '2020-01-01';
",
    ),
    (
        "status",
        "create type {area}_status as enum ('draft', 'active', 'closed');
alter table {area} add column status {area}_status not null default 'draft';
alter table {area} add constraint {area}_has_name check (name <> '');
",
    ),
    (
        "events",
        "create table {area}_event (
    {area}_id bigint not null references {area} (id) on delete cascade,
    happened_at timestamptz not null default now(),
    kind text not null,
    payload jsonb,
    primary key ({area}_id, happened_at)
);
create view {area}_activity as
    select {area}.id, {area}.name, count({area}_event) as events, max(happened_at) as latest
    from {area} left join {area}_event on {area}_event.{area}_id = {area}.id group by {area}.id;
",
    ),
    (
        "touch",
        "create function touch_{area}() returns trigger language plpgsql as $$
begin
    new.updated_at := now();
    return new;
end $$;
create trigger touch before update on {area} for each row execute function touch_{area}();
insert into {area} (name, attributes)
    select '{area} ' || i, jsonb_build_object('rank', i) from generate_series(1, 20) i;
",
    ),
];

/// The tables and rows of `pgbench --initialize`; `{scale}` is the scale factor.
const PGBENCH: &str = "create table pgbench_branches (bid int not null, bbalance int, filler char(88));
create table pgbench_tellers (tid int not null, bid int, tbalance int, filler char(84));
create table pgbench_accounts (aid int not null, bid int, abalance int, filler char(84));
create table pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
insert into pgbench_branches (bid, bbalance) select bid, 0 from generate_series(1, {scale}) bid;
insert into pgbench_tellers (tid, bid, tbalance)
    select tid, (tid - 1) / 10 + 1, 0 from generate_series(1, {scale} * 10) tid;
insert into pgbench_accounts (aid, bid, abalance, filler)
    select aid, (aid - 1) / 100000 + 1, 0, '' from generate_series(1, {scale} * 100000) aid;
alter table pgbench_branches add primary key (bid);
alter table pgbench_tellers add primary key (tid);
alter table pgbench_accounts add primary key (aid);
";

/// The contents of a database at the begin of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// No database: a container with a shell.
    Container,
    Empty,
    /// 40 files of a web shop's schema, with few rows.
    Migrations,
    /// pgbench at scale 8: 127 MB, of which one table and its index take 119 MB.
    Large,
    /// pgbench at scale 100: 1.5 GB.
    Huge,
}

impl Workload {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Container => "container without a server",
            Self::Empty => "empty database",
            Self::Migrations => "40 migrations",
            Self::Large => "127 MB",
            Self::Huge => "1.5 GB",
        }
    }

    /// Returns the size of the database.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Container => 0,
            Self::Empty => 8 << 20,
            Self::Migrations => 10 << 20,
            Self::Large => 127 << 20,
            Self::Huge => 1500 << 20,
        }
    }

    /// Returns the tables that tests read.
    pub(crate) fn uses(self) -> &'static [Access] {
        match self {
            Self::Large | Self::Huge => &[Access::Small, Access::Large],
            _ => &[Access::Small],
        }
    }

    /// Writes the files into a new directory below `directory`, named as sqlx names migrations.
    pub(crate) fn write(self, directory: &Path) -> io::Result<PathBuf> {
        let directory = directory.join(self.name().replace(' ', "-"));
        fs::create_dir_all(&directory)?;
        let files = match self {
            Self::Container | Self::Empty => Vec::new(),
            Self::Migrations => migrations(),
            Self::Large => vec![("pgbench".to_owned(), PGBENCH.replace("{scale}", "8"))],
            Self::Huge => vec![("pgbench".to_owned(), PGBENCH.replace("{scale}", "100"))],
        };
        for (index, (name, sql)) in files.iter().enumerate() {
            fs::write(directory.join(format!("{:04}_{name}.sql", index + 1)), sql)?;
        }
        Ok(directory)
    }

    /// Returns the query of a test, which returns one row.
    pub(crate) fn query(self, access: Access) -> &'static str {
        match (self, access) {
            (Self::Container | Self::Empty, _) => "select 1",
            (Self::Migrations, _) => "select count(*) from customer_activity",
            (Self::Large | Self::Huge, Access::Small) => {
                "select bbalance from pgbench_branches where bid = 7"
            }
            (Self::Large | Self::Huge, Access::Large) => {
                "select abalance from pgbench_accounts where aid = 777777"
            }
        }
    }
}

/// The table that a test reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Access {
    /// One row of a small table, or none.
    Small,
    /// One row of the large table, by its primary key.
    Large,
}

/// Returns the migrations. Every area references the one before it, the first itself.
fn migrations() -> Vec<(String, String)> {
    let mut files = Vec::with_capacity(MIGRATIONS);
    for (index, area) in AREAS.iter().enumerate() {
        let before = AREAS[index.saturating_sub(1)];
        for (stage, sql) in STAGES {
            let sql = sql.replace("{area}", area).replace("{before}", before);
            files.push((format!("{area}_{stage}"), sql));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_numbered_in_the_order_of_their_references() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Workload::Migrations.write(directory.path()).unwrap();
        let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 40);
        for (index, area) in AREAS.iter().enumerate() {
            let created = &files[index * STAGES.len()];
            assert!(created.ends_with(format!("{:04}_{area}_create.sql", index * STAGES.len() + 1)));
            let sql = fs::read_to_string(created).unwrap();
            let before = AREAS[index.saturating_sub(1)];
            assert!(sql.contains(&format!("references {before} (id)")), "{sql}");
            assert!(!sql.contains("{area}") && !sql.contains("{before}"), "{sql}");
        }
    }
}
