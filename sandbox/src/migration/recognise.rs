//! The tool that a directory is written for, by what only one tool does, or the reason why the
//! directory is not run. Pure.

use super::down;
use super::order::in_order;
use super::tool::{Listing, MigrationTool, Refusal, TOOLS, Tool};

/// Returns the tool of a directory, if its names alone show it.
pub(crate) fn by_names(listing: &Listing) -> Result<Option<MigrationTool>, Refusal> {
    for (tool, rules) in TOOLS {
        if rules.is_named(listing)? {
            return Ok(Some(tool));
        }
    }
    Ok(None)
}

/// Returns the tool of a directory, given the one that its names show and the contents of its
/// migrations.
///
/// Refuses anything that may hold a down migration which the tool does not leave out.
pub(crate) fn by_contents(
    named: Option<MigrationTool>,
    listing: &Listing,
    files: &[(String, String)],
) -> Result<Option<MigrationTool>, Refusal> {
    let Some((tool, rules, marked, mark)) = marked(files) else {
        for (name, contents) in files {
            down::check_contents(name, contents)?;
        }
        return Ok(named);
    };
    let by_mark = format!("{} by its line `{mark}`", rules.name());
    if let Some(named) = named.and_then(MigrationTool::rules) {
        let by_name = format!("{by_mark} and of {} by its name", named.name());
        return Err(Refusal::undecided(format!("`{marked}` is a migration of {by_name}")));
    }
    for (name, contents) in files {
        let of_another = TOOLS.iter().any(|(other, rules)| *other != tool && rules.mark(contents).is_some());
        match rules.mark(contents) {
            Some(_) if !of_another => {}
            None if !of_another && !rules.needs_mark() => down::check_contents(name, contents)?,
            _ => return Err(Refusal::mixed(marked, &by_mark, name)),
        }
    }
    let known = in_order(Some(tool), listing)?;
    let is_known =
        |name: &&str| known.iter().any(|migration| migration.path == **name) || name.ends_with(".down.sql");
    match listing.sql().find(|name| !is_known(name)) {
        None => Ok(Some(tool)),
        Some(other) => Err(Refusal::mixed(marked, &by_mark, other)),
    }
}

/// The first file that has the mark of a tool.
fn marked(files: &[(String, String)]) -> Option<(MigrationTool, &'static dyn Tool, &str, &str)> {
    files.iter().find_map(|(name, contents)| {
        let with_mark = TOOLS.iter().find_map(|(tool, rules)| Some((*tool, *rules, rules.mark(contents)?)));
        with_mark.map(|(tool, rules, mark)| (tool, rules, name.as_str(), mark.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_only_one_tool_uses_are_recognised() {
        use MigrationTool::{Diesel, Flyway, Prisma, Refinery};
        let tool = |names: &[&str]| by_names(&Listing::of(names)).unwrap();
        assert_eq!(tool(&["2024-01-01-000000_a/up.sql", "README.md"]), Some(Diesel));
        assert_eq!(tool(&["V1__a.sql", "U2__b.sql", "mod.rs"]), Some(Refinery));
        assert_eq!(tool(&["1_a/migration.sql", "migration_lock.toml"]), Some(Prisma));
        for names in [&["V1__a.sql", "V1.1__b.sql"], &["V1__a.sql", "R__b.sql"], &["V1__a.sql", "U1__a.sql"]]
        {
            assert_eq!(tool(names), Some(Flyway), "{names:?}");
        }
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
        let cause = |names: &[&str]| by_names(&Listing::of(names)).unwrap_err().cause;
        assert_eq!(
            cause(&["V1__a.sql", "1_b.sql"]),
            "`V1__a.sql` is a migration of refinery, `1_b.sql` is not"
        );
        assert_eq!(cause(&["R__a.sql", "1_b.sql"]), "`R__a.sql` is a migration of Flyway, `1_b.sql` is not");
        assert_eq!(cause(&["1_a/up.sql", "b.sql"]), "`1_a/up.sql` is a migration of Diesel, `b.sql` is not");
    }

    fn recognise(files: &[(&str, &str)]) -> Result<Option<MigrationTool>, Refusal> {
        let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        let files: Vec<_> =
            files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        by_contents(None, &Listing::of(&names), &files)
    }

    #[test]
    fn sections_name_their_tool_in_any_case() {
        use MigrationTool::{Dbmate, Goose, NodePgMigrate, Tern};
        let tool = |contents: &str| recognise(&[("1_a.sql", contents)]).unwrap();
        assert_eq!(tool("-- a\n--migrate:up transaction:false\n"), Some(Dbmate));
        assert_eq!(tool("\u{feff}-- migrate:up\n"), Some(Dbmate));
        assert_eq!(tool("-- +goose up\n"), Some(Goose));
        assert_eq!(tool("\u{feff}-- +GOOSE Up\n"), Some(Goose));
        assert_eq!(tool("-- Up Migration\n-- Down Migration\n"), Some(NodePgMigrate));
        assert_eq!(tool("---down migration\n"), Some(NodePgMigrate));
        assert_eq!(tool("a;\n---- create above / drop below ----\nb;"), Some(Tern));
        for none in ["", "select '-- migrate:up'", "-- see migrate:up", "-- speed up\nselect 1;"] {
            assert_eq!(tool(none), None, "{none}");
        }
    }

    #[test]
    fn files_beside_a_marked_one_must_be_the_same_tools() {
        let cause = |files: &[(&str, &str)]| recognise(files).unwrap_err().cause;
        let mark = "`1_a.sql` is a migration of dbmate by its line `-- migrate:up`";
        let unmarked = [("1_a.sql", "-- migrate:up"), ("2_b.sql", "")];
        assert_eq!(cause(&unmarked), format!("{mark}, `2_b.sql` is not"));
        let of_goose = [("1_a.sql", "-- migrate:up"), ("2_b.sql", "-- +goose Up")];
        assert_eq!(cause(&of_goose), format!("{mark}, `2_b.sql` is not"));
        let divided = ("1_a.sql", "a;\n---- create above / drop below ----\n");
        assert_eq!(recognise(&[divided, ("2_b.sql", "b;")]), Ok(Some(MigrationTool::Tern)));
        assert!(cause(&[divided, ("2_b.sql", "b;\n-- down\nc;")]).contains("may begin a down migration"));
        assert!(cause(&[divided, ("b.sql", "b;")]).ends_with("`b.sql` is not"));
    }
}
