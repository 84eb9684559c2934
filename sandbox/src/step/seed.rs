//! Seeds: files of SQL, rows of a table, archives of the database's dump program.

use std::path::Path;

use super::{FileStep, Input, Link, SourceFile, compressed};
use crate::engine::{Engine, Format};
use crate::error::{Error, ErrorKind, Result};

pub(super) fn read<E: Engine>(file: &Path, engine: &E) -> Result<Input<E>> {
    let inside = compressed::name_inside(file);
    let run = if engine.is_archive(file) {
        FileStep { format: Format::Archive, ..FileStep::whole(SourceFile::tree(file)?)? }
    } else if file.is_dir() {
        return Err(refused(file, "it is a directory, and not an archive of the database's dump program")
            .with_hint("run the files of a directory by `migrations` (`--migrations`)"));
    } else if inside.extension().is_some_and(|extension| extension == "csv") {
        let format = Format::Csv { table: table(inside), columns: columns(file)? };
        FileStep { format, streamed: true, ..FileStep::whole(SourceFile::tree(file)?)? }
    } else {
        FileStep::whole(SourceFile::script(file, engine)?)?
    };
    let watched = run.source.watched().collect();
    Ok(Input {
        label: format!("seed `{}`", run.source.path.display()),
        links: vec![Link::File(run)],
        watched,
    })
}

/// The table that names the file, perhaps with its schema.
fn table(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The columns that the first record names.
fn columns(file: &Path) -> Result<Vec<String>> {
    let contents = compressed::open(file).map_err(|error| super::source::unreadable(file, error))?;
    let mut records = csv::ReaderBuilder::new().has_headers(false).from_reader(contents);
    let header = records.records().next().transpose().map_err(|error| refused(file, error))?;
    // COPY takes a blank line for the header.
    let header = header.filter(|header| header.position().is_none_or(|position| position.line() == 1));
    let columns: Vec<String> = header.iter().flatten().map(str::to_owned).collect();
    if columns.iter().all(String::is_empty) {
        return Err(refused(file, "it has no header").with_hint("the first line names the table's columns"));
    }
    Ok(columns)
}

fn refused(file: &Path, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("load the seed `{}`", file.display())).caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_the_columns() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("users.csv");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            columns(&file)
        };
        assert_eq!(read("id,name\n1,a\n").unwrap(), ["id", "name"]);
        assert_eq!(read("\u{feff}id,\"a \"\"b\"\", c\"\r\n").unwrap(), ["id", "a \"b\", c"]);
        for empty in ["", "\n\n", ",\n"] {
            assert!(format!("{:?}", read(empty).unwrap_err()).contains("no header"), "{empty:?}");
        }
        assert_eq!(table(Path::new("seeds/shop.users.csv")), "shop.users");
    }
}
