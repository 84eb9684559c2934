//! Definitions and sequences, read from PostgreSQL's catalogues.

use postgres::{Client, SimpleQueryMessage};

use super::super::definitions::{Objects, Sequences};

const OBJECTS: &str = include_str!("objects.sql");
const SERVER: &str = include_str!("server.sql");

/// Returns the definitions in the client's database.
pub(super) fn objects(client: &mut Client) -> Result<Objects, postgres::Error> {
    read(client, OBJECTS)
}

/// Returns the definitions that belong to the whole server.
pub(super) fn server_objects(client: &mut Client) -> Result<Objects, postgres::Error> {
    read(client, SERVER)
}

fn read(client: &mut Client, query: &str) -> Result<Objects, postgres::Error> {
    let rows = client.simple_query(query)?;
    let objects = rows.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let text = |column| row.get(column).unwrap_or_default().trim_end().to_owned();
            Some(((text(0), text(1)), text(2)))
        }
        _ => None,
    });
    Ok(objects.collect())
}

/// Returns the last values of all sequences.
pub(super) fn sequences(client: &mut Client) -> Result<Sequences, postgres::Error> {
    const QUERY: &str = "SELECT format('%I.%I', schemaname, sequencename), last_value FROM pg_sequences";
    Ok(client.query(QUERY, &[])?.iter().map(|row| (row.get(0), row.get(1))).collect())
}
