//! The changes that a test made to a PostgreSQL server: starts both states and queries them.

mod catalogue;
mod rows;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use postgres::config::Config;
use postgres::{Client, NoTls};
use sandboxed_db::Sandbox;
use sandboxed_db::cache::KeptState;

use self::catalogue::{objects, sequences, server_objects};
use self::rows::{Column, Table};
use super::definitions::{object_changes, sequence_changes};
use super::{Change, DatabaseDifference, Difference, TableDifference};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Definitions show schema-qualified names, no limit in the test's settings applies, and equal
/// tables return their rows in the same order.
const SESSION: &str = "
    SET search_path = pg_catalog;
    SET statement_timeout = 0;
    SET lock_timeout = 0;
    SET row_security = off;
    SET synchronize_seqscans = off;
    SET max_parallel_workers_per_gather = 0;
    SET extra_float_digits = 1;
";

/// Tables whose rows are compared: all that store rows, and of the system catalogues that of large
/// objects.
const TABLES: &str = "
    SELECT
        c.oid::regclass::text,
        array(SELECT attname::text FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum),
        array(SELECT quote_ident(attname) FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum),
        array(SELECT attnum || format_type(atttypid, atttypmod) FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum),
        array(SELECT attname::text FROM pg_index, unnest(indkey) WITH ORDINALITY AS keys(number, place)
            JOIN pg_attribute ON attnum = number
            WHERE indrelid = c.oid AND indisprimary AND attrelid = c.oid AND place <= indnkeyatts ORDER BY place),
        pg_relation_filepath(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'm') AND relispopulated
    AND (nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema' OR c.oid = 'pg_largeobject'::regclass)
";

pub(super) fn compare(state: &KeptState, show: usize) -> Result<Difference> {
    let (before, after) = (state.start_before()?, state.start()?);
    let mut difference = Difference::of(state);
    let (mut old, mut new) = (connect(&before, None)?, connect(&after, None)?);
    difference.server = object_changes(server_objects(&mut old)?, server_objects(&mut new)?);
    // Added and removed databases are listed below, with their contents.
    difference
        .server
        .retain(|change| change.kind != "database" || change.before.is_some() && change.after.is_some());
    let (old, new) = (databases(&mut old)?, databases(&mut new)?);
    for (name, connects) in &new {
        let found = match old.get(name) {
            // It accepts no connections; `server` shows if that is new.
            Some(connected) if !connected || !connects => continue,
            Some(_) => {
                let mut clients = (connect(&before, Some(name))?, connect(&after, Some(name))?);
                database(state, name, &mut clients, show, &mut difference.tables_compared)?
            }
            None if *connects => added(name, &mut (connect(&before, None)?, connect(&after, Some(name))?))?,
            None => empty(name, Change::Added),
        };
        difference.databases.extend(Some(found).filter(|found| !found.is_empty()));
    }
    let removed = old.keys().filter(|name| !new.contains_key(*name));
    difference.databases.extend(removed.map(|name| empty(name, Change::Removed)));
    Ok(difference)
}

fn connect(sandbox: &Sandbox, database: Option<&str>) -> Result<Client> {
    let mut config: Config = sandbox.url().parse()?;
    // A test cannot drop this database.
    config.dbname(database.unwrap_or("template1"));
    let mut client = config.connect(NoTls)?;
    client.batch_execute(SESSION)?;
    Ok(client)
}

/// Returns the databases by name, and whether they accept connections.
fn databases(client: &mut Client) -> Result<BTreeMap<String, bool>> {
    const QUERY: &str = "SELECT datname::text, datallowconn FROM pg_database";
    Ok(client.query(QUERY, &[])?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn empty(name: &str, change: Change) -> DatabaseDifference {
    let database = name.to_owned();
    DatabaseDifference { database, change, objects: Vec::new(), sequences: Vec::new(), tables: Vec::new() }
}

/// Describes a database that the test created: its definitions beyond those of the template, and
/// its row counts.
fn added(name: &str, (template, client): &mut (Client, Client)) -> Result<DatabaseDifference> {
    let objects = object_changes(objects(template)?, objects(client)?);
    let mut tables = Vec::new();
    for Table { name: table, key, .. } in self::tables(client)? {
        let added = rows::count(client, &table)?;
        tables.push(TableDifference { table, key, added, ..TableDifference::default() });
    }
    tables.retain(|table| !table.is_empty());
    Ok(DatabaseDifference { objects, tables, ..empty(name, Change::Added) })
}

fn database(
    state: &KeptState,
    name: &str,
    (before, after): &mut (Client, Client),
    show: usize,
    compared: &mut usize,
) -> Result<DatabaseDifference> {
    let mut difference = empty(name, Change::Changed);
    difference.objects = object_changes(objects(before)?, objects(after)?);
    difference.sequences = sequence_changes(&sequences(before)?, sequences(after)?);
    let (old, new) = (tables(before)?, tables(after)?);
    for table in &new {
        let earlier = old.iter().find(|earlier| earlier.name == table.name);
        let found = match earlier {
            Some(earlier) => {
                *compared += 1;
                if is_untouched(state, earlier, table) {
                    continue;
                }
                rows::compare((before, earlier), (after, table), show)?
            }
            None => TableDifference {
                table: table.name.clone(),
                key: table.key.clone(),
                added: rows::count(after, &table.name)?,
                ..TableDifference::default()
            },
        };
        difference.tables.push(found);
    }
    for table in old.iter().filter(|table| !new.iter().any(|later| later.name == table.name)) {
        let removed = rows::count(before, &table.name)?;
        difference.tables.push(TableDifference {
            table: table.name.clone(),
            removed,
            ..TableDifference::default()
        });
    }
    difference.tables.retain(|table| !table.is_empty());
    difference.tables.sort_by(|one, other| one.table.cmp(&other.table));
    Ok(difference)
}

fn tables(client: &mut Client) -> Result<Vec<Table>> {
    let tables = client.query(TABLES, &[])?.into_iter().map(|row| {
        let [names, identifiers, definitions]: [Vec<String>; 3] = [row.get(1), row.get(2), row.get(3)];
        let columns = names.into_iter().zip(identifiers).zip(definitions);
        let columns = columns.map(|((name, identifier), definition)| Column { name, identifier, definition });
        Table { name: row.get(0), columns: columns.collect(), key: row.get(4), file: row.get(5) }
    });
    Ok(tables.collect())
}

/// Reports whether the table's files are still those of the snapshot, so that its rows need no
/// comparison. After a crash the write-ahead log may hold changes that the files lack.
fn is_untouched(state: &KeptState, before: &Table, after: &Table) -> bool {
    /// A table has a file for each GB, up to 32 TB.
    const MOST: usize = 1 << 15;
    let Some(file) = after.file.as_ref().filter(|_| state.clean && before == after) else { return false };
    let further = (1..MOST).map(|number| format!("{file}.{number}"));
    let further = further.take_while(|file| state.data().join(file).exists());
    [file.clone()].into_iter().chain(further).all(|file| state.is_untouched(Path::new(&file)))
}
