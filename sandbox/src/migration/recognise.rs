//! Which tool a directory is for, told from what only one tool does, or why it is not run. What several do is nobody's.
//! Pure.

use super::tool::{Listing, Mark, MigrationTool, Refusal, TOOLS};

/// Tools that are not supported, and whose files must not be run whole.
const UNSUPPORTED: [Mark; 2] =
    [Mark { tool: "goose", text: "+goose Up" }, Mark { tool: "sql-migrate", text: "+migrate Up" }];

/// The tool of a directory, if its names alone tell it.
pub(crate) fn by_names(listing: &Listing) -> Result<Option<MigrationTool>, Refusal> {
    for (tool, known) in TOOLS {
        if known.is_named(listing)? {
            return Ok(Some(tool));
        }
    }
    Ok(None)
}

/// The tool of a directory of files, if their sections tell it.
pub(crate) fn by_sections(files: &[(Option<Mark>, String)]) -> Result<Option<MigrationTool>, Refusal> {
    let marked = || files.iter().filter_map(|(mark, name)| Some(((*mark)?, name)));
    if let Some((Mark { tool, text }, name)) = marked().find(|(mark, _)| UNSUPPORTED.contains(mark)) {
        return Err(Refusal::new(
            format!("`{name}` holds sections of {tool} (`-- {text}`), of which only a part must be run"),
            format!(
                "{tool} is not supported; `MigrationTool::Plain` runs its files whole, the way back included"
            ),
        ));
    }
    let Some((mark, name)) = marked().next() else {
        return Ok(None);
    };
    if let Some((_, other)) = files.iter().find(|(other, _)| *other != Some(mark)) {
        return Err(Refusal::mixed(name, &format!("{}'s, with `-- {}`", mark.tool, mark.text), other));
    }
    Ok(TOOLS.into_iter().find(|(_, known)| known.mark() == Some(mark)).map(|(tool, _)| tool))
}

/// What begins the sections that a file is divided into, if it is.
pub(crate) fn mark(contents: &[u8]) -> Option<Mark> {
    let begins_line = |at: usize| {
        let line = &contents[memchr::memrchr(b'\n', &contents[..at]).map_or(0, |end| end + 1)..at];
        line.strip_prefix(b"--").is_some_and(|blank| blank.trim_ascii().is_empty())
    };
    let supported = TOOLS.into_iter().filter_map(|(_, known)| known.mark());
    supported.chain(UNSUPPORTED).find(|mark| memchr::memmem::find_iter(contents, mark.text).any(begins_line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_only_one_tool_uses_are_recognised() {
        use MigrationTool::{Diesel, Refinery};
        let tool = |names: &[&str]| by_names(&Listing::of(names)).unwrap();
        assert_eq!(tool(&["2024-01-01-000000_a/up.sql", "README.md"]), Some(Diesel));
        assert_eq!(tool(&["V1__a.sql", "U2__b.sql", "mod.rs"]), Some(Refinery));
        for names in [
            &["1_a.sql"][..],
            &["1_a.up.sql", "1_a.down.sql"],
            &["a.sql", "1.sql"],
            &["V1_a.sql", "Users.sql", "Version2__x.sql"],
            &["parts/a.sql", "a.sql"],
            &[],
        ] {
            assert_eq!(tool(names), None, "{names:?}");
        }
    }

    #[test]
    fn a_mixed_directory_is_refused() {
        let seen = |names: &[&str]| by_names(&Listing::of(names)).unwrap_err().seen;
        assert_eq!(seen(&["V1__a.sql", "1_b.sql"]), "`V1__a.sql` is refinery's, `1_b.sql` is not");
        assert_eq!(seen(&["V1__a.sql", "R__b.sql"]), "`V1__a.sql` is refinery's, `R__b.sql` is not");
        assert_eq!(seen(&["1_a/up.sql", "b.sql"]), "`1_a/up.sql` is Diesel's, `b.sql` is not");
        assert!(seen(&["V1__a.sql", "V1.1__b.sql"]).contains("refinery cannot read its version"));
        let marked = [(mark(b"-- migrate:up"), "1_a.sql".to_owned()), (None, "2_b.sql".to_owned())];
        assert!(by_sections(&marked).unwrap_err().seen.ends_with("`2_b.sql` is not"));
    }

    #[test]
    fn sections_are_recognised_at_the_beginning_of_a_line() {
        let tool = |contents: &[u8]| mark(contents).map(|mark| mark.tool);
        assert_eq!(tool(b"-- migrate:up\n"), Some("dbmate"));
        assert_eq!(tool(b"-- a\n--migrate:up transaction:false\n"), Some("dbmate"));
        assert_eq!(tool(b"-- caf\xe9, in Latin-1\n-- migrate:up\n"), Some("dbmate"));
        assert_eq!(tool(b"\n-- +goose Up\n"), Some("goose"));
        assert_eq!(tool(b"-- +migrate Up"), Some("sql-migrate"));
        for none in ["", "select '-- migrate:up'", "  -- migrate:up", "-- see migrate:up", "migrate:up"] {
            assert_eq!(tool(none.as_bytes()), None, "{none}");
        }
    }
}
