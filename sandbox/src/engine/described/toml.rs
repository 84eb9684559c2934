//! Descriptions from files of TOML, and the places of mistakes in them.

use std::path::Path;

use super::check::Mistake;
use super::description::Description;
use crate::error::{Error, ErrorKind, Result};

/// Files are a page; a larger one is another file.
const LARGEST: u64 = 1 << 20;

pub(super) fn read(path: &Path) -> Result<Description> {
    let failed = || Error::new(ErrorKind::InvalidConfig, format!("read the engine `{}`", path.display()));
    let size = std::fs::metadata(path).map(|file| file.len());
    let text = match size {
        Ok(size) if size > LARGEST => Err(std::io::Error::other("it is larger than 1 MB")),
        Ok(_) => std::fs::read_to_string(path),
        Err(error) => Err(error),
    };
    let text = text.map_err(|error| failed().caused_by(error).at(path, None))?;
    parse(&text).map_err(|(line, cause)| {
        let place = line.map(|line| format!("{}:{line}", path.display()));
        let step = format!("read the engine `{}`", place.unwrap_or_else(|| path.display().to_string()));
        Error::new(ErrorKind::InvalidConfig, step).caused_by(cause).at(path, line)
    })
}

/// Returns the line of a mistake, if it has one, and its cause.
fn parse(text: &str) -> std::result::Result<Description, (Option<u64>, String)> {
    let line_at = |at: usize| text[..at].matches('\n').count() as u64 + 1;
    let description: Description = ::toml::from_str(text).map_err(|error| {
        // A missing key has no place: it spans the whole text.
        let span = error.span().filter(|span| span.start > 0 || span.end < text.len());
        (span.map(|span| line_at(span.start)), error.message().to_owned())
    })?;
    description.check().map_err(|Mistake { near, cause }| {
        let found = text.find(&near).filter(|_| !near.is_empty());
        (found.map(line_at), cause)
    })?;
    Ok(description)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: &str = "name = \"x\"\nprogram = \"xd\"\nargs = [\"-s\", \"{socket}\"]\nsocket = \"/run/x.sock\"\nurl = \"x://{socket}\"\n";

    #[test]
    fn a_description_is_read_as_written() {
        let read = parse(USUAL).unwrap_or_else(|(_, cause)| panic!("{cause}"));
        assert_eq!((read.name.as_str(), read.program.0.as_slice()), ("x", &["xd".to_owned()][..]));
        let rest = "port = 7\nversion = false\nready = { notify = true, http = \"/\" }\nclean_signals = [\"TERM\"]\n\
                    [settings]\nfile = \"/x\"\nline = \"{name} {value}\"\n[seed]\ncommand = [\"c\"]\n\
                    [tcp]\nurl = \"x://{address}\"\npassword = false\n";
        for text in [USUAL.to_owned(), USUAL.to_owned() + rest] {
            let read = parse(&text).unwrap_or_else(|(_, cause)| panic!("{cause}"));
            let json = serde_json::to_string(&read).unwrap();
            assert_eq!(serde_json::from_str::<Description>(&json).unwrap(), read);
        }
    }

    #[test]
    fn mistakes_have_their_lines_and_the_choices() {
        for (added, line, expected) in [
            ("prgram = 1", 6, "unknown field `prgram`, expected one of `name`, `program`"),
            ("stop_signal = \"TRM\"", 6, "unknown signal `TRM`, expected one of `HUP`, `INT`"),
            ("\nport = \"7\"", 7, "invalid type: string \"7\", expected u16"),
            ("version = true", 6, "an argument as a string, or `false`"),
            ("package = [\"x\"]", 6, "invalid type: sequence, expected a string"),
            ("directories = [\"run\"]", 6, "`run` is no absolute path"),
            ("env = { A = \"{prt}\" }", 6, "unknown placeholder `{prt}`"),
            ("env = { A = \"{port}\" }", 6, "`{port}` in `{port}` has no value"),
            ("client_env = { A = \"{port}\" }", 6, "unknown placeholder `{port}`, expected one of `{data}`"),
            ("variable = []", 6, "invalid type: sequence"),
            ("initialise = []", 6, "expected a program and its arguments"),
            ("ready = { send = \"x\" }", 6, "a sign is one of"),
            ("ready = { http = \"x\" }", 6, "begins with `/`"),
            ("ready = { exepct = \"x\" }", 6, "unknown field `exepct`"),
            ("[settings]\nargs = [\"{nam}\"]", 7, "expected one of `{name}`, `{value}`"),
            ("[settings]\nfile = \"/x\"", 6, "write the one or the other"),
            ("[seed]\ncommand = [\"c\", \"{file}\"]\nafter = \"x\"", 7, "which `{file}` replaces"),
            ("[tcp]\nurl = \"x://{address}\"\npassword = false", 6, "`tcp` needs the server's `port`"),
            ("port = 7\n[tcp]\nurl = \"x\"", 7, "missing field `password`"),
            ("port = 7\n[tcp]\nurl = \"x\"\npassword = true", 9, "expected `false`, or the command"),
            ("x = ", 6, ""),
        ] {
            let (found, cause) = parse(&format!("{USUAL}{added}\n")).expect_err(added);
            assert_eq!((found, cause.contains(expected)), (Some(line), true), "{added}: {found:?} {cause}");
        }
        for (text, expected) in [
            ("name = \"x\"\nurl = \"x\"", "missing field `program`"),
            ("name = \"x\"\nprogram = \"x\"\nsocket = \"/x\"", "write `url`"),
            ("name = \"x\"\nprogram = \"x\"\nurl = \"x\"", "nothing says where the server is ready"),
            ("name = \"redis\"\nprogram = \"x\"\nurl = \"x\"", "belongs to an engine of this library"),
            ("name = \"X\"\nprogram = \"x\"\nurl = \"x\"", "has other characters"),
        ] {
            let (_, cause) = parse(text).expect_err(text);
            assert!(cause.contains(expected), "{text}: {cause}");
        }
    }
}
