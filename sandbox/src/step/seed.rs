//! Seeds: files of SQL, rows of a table, archives of the database's dump program.

use std::io::{self, BufReader, Read};
use std::path::Path;

use super::{FileStep, ReadFiles, SourceFile, compressed};
use crate::engine::{Format, Scripts};
use crate::error::{Error, ErrorKind, Result};

pub(super) fn read(file: &Path, engine: &dyn Scripts) -> Result<ReadFiles> {
    let inside = compressed::name_inside(file);
    let run = if engine.is_archive(file) {
        FileStep { format: Format::Archive, ..FileStep::whole(SourceFile::tree(file)?)? }
    } else if file.is_dir() {
        return Err(refused(file, "it is a directory, and not an archive of the database's dump program")
            .with_hint("run the files of a directory by `migrations` (`--migrations`)"));
    } else if inside.extension().is_some_and(|extension| extension == "csv") {
        if !engine.runs_csv() {
            return Err(refused(file, "its engine loads no rows from files")
                .with_hint("write them in the language of the database's client"));
        }
        let format = Format::Csv { table: table(inside), columns: columns(file)? };
        FileStep { format, streamed: true, ..FileStep::whole(SourceFile::tree(file)?)? }
    } else {
        FileStep::whole(SourceFile::script(file, engine)?)?
    };
    let watched = run.source.watched().collect();
    Ok(ReadFiles { label: format!("seed `{}`", run.source.path.display()), files: vec![run], watched })
}

/// The table that names the file, perhaps with its schema.
fn table(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The columns that the header names.
fn columns(file: &Path) -> Result<Vec<String>> {
    let contents = compressed::open(file).map_err(|error| super::source::unreadable(file, error))?;
    let columns = header(contents).map_err(|error| refused(file, error))?;
    if columns.iter().all(String::is_empty) {
        return Err(refused(file, "it has no header")
            .with_hint("write the names of the table's columns in its first line"));
    }
    Ok(columns)
}

/// Returns the values of the first line, as COPY reads it. A value in quotes may go on in the next.
fn header(contents: impl Read) -> io::Result<Vec<String>> {
    let (mut values, mut quoted, mut after_quote) = (vec![Vec::new()], false, false);
    for byte in BufReader::new(contents).bytes() {
        let byte = byte?;
        let value = values.last_mut().expect("there is one from the start");
        match byte {
            b'"' if quoted => quoted = false,
            b'"' => {
                if after_quote {
                    value.push(byte);
                }
                quoted = true;
            }
            b',' if !quoted => values.push(Vec::new()),
            b'\n' | b'\r' if !quoted => break,
            _ => value.push(byte),
        }
        after_quote = byte == b'"' && !quoted;
    }
    if quoted {
        return Err(io::Error::other("a quote in its header is not closed"));
    }
    if let Some(marked) = values[0].strip_prefix("\u{feff}".as_bytes()) {
        values[0] = marked.to_vec();
    }
    let text = |value| String::from_utf8(value).map_err(|_| io::Error::other("its header is not UTF-8"));
    values.into_iter().map(text).collect()
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
        assert_eq!(read("\"a\nb\",c\"d\"\re").unwrap(), ["a\nb", "cd"]);
        for (broken, cause) in [("\"id,name\n", "not closed"), ("id,\"\"\"", "not closed")] {
            assert!(format!("{:?}", read(broken).unwrap_err()).contains(cause), "{broken:?}");
        }
        std::fs::write(&file, b"n\xe9\n1\n").unwrap();
        assert!(format!("{:?}", columns(&file).unwrap_err()).contains("not UTF-8"));
        for empty in ["", "\n\n", ",\n"] {
            assert!(format!("{:?}", read(empty).unwrap_err()).contains("no header"), "{empty:?}");
        }
        assert_eq!(table(Path::new("seeds/shop.users.csv")), "shop.users");
    }
}
