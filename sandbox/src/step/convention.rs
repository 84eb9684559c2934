//! How migration tools lay out their directories: from names to an ordered list, or to a refusal. Pure.
//!
//! Every tool names the version, the direction and the order of its migrations in its own way, and some share a way.
//! What only one tool does is recognised; what several do is that of the one the user names.

/// A tool whose directories of migrations are understood; for [`Snapshot::migrations_of`](crate::Snapshot::migrations_of).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MigrationTool {
    /// No tool: whole `.sql` files in the order of their names, as psql(1) runs them. `.down.sql` files are left out.
    Plain,
    /// sqlx: `<version>_<name>.sql` or `<version>_<name>.up.sql`, in the order of their versions; each in a transaction,
    /// unless it begins with `-- no-transaction`. Fills `_sqlx_migrations`.
    Sqlx,
    /// Diesel: `<version>_<name>/up.sql`, each in a transaction, unless `run_in_transaction = false` is in a
    /// `metadata.toml` beside it. Fills `__diesel_schema_migrations`.
    Diesel,
    /// refinery: `V<version>__<name>.sql` and `U<version>__<name>.sql`, each in a transaction. Fills
    /// `refinery_schema_history`, where versions are `int8` if one of them is too large for an `int4`, as with the feature
    /// `int8-versions` of refinery.
    Refinery,
    /// golang-migrate: `<version>_<name>.up.sql`, in the order of their versions. Fills `schema_migrations` with the last.
    GolangMigrate,
    /// dbmate: `<version>_<name>.sql` with the sections `-- migrate:up` and `-- migrate:down`, of which the first is run; in
    /// a transaction, unless its line says `transaction:false`. Fills `schema_migrations`.
    Dbmate,
}

/// What a directory holds, as far as migrations are concerned: no hidden names.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<String>,
    /// Directories, with the files in them.
    pub(super) directories: Vec<(String, Vec<String>)>,
}

/// A file to run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Migration {
    /// Below the directory of migrations.
    pub(super) path: String,
    /// As the tool keeps it.
    pub(super) version: String,
    pub(super) name: String,
}

/// Why a directory is not run: what was seen in it, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) seen: String,
    pub(super) hint: String,
}

impl Refusal {
    fn new(seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { seen: seen.into(), hint: hint.into() }
    }
}

/// Sections by which one file holds both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sections {
    Dbmate,
    Goose,
    SqlMigrate,
}

const CHOOSE: &str = "name the tool whose files they are: `Snapshot::migrations_of(MigrationTool::…, directory)`; \
                      `MigrationTool::Plain` runs every `.sql` file in the order of names";

/// The tool of a directory, if its names alone tell it.
pub(super) fn by_names(listing: &Listing) -> Result<Option<MigrationTool>, Refusal> {
    let diesel = listing.directories.iter().find(|(_, files)| files.iter().any(|file| file == "up.sql"));
    let sql = || listing.files.iter().filter(|name| name.ends_with(".sql"));
    if let Some((directory, _)) = diesel {
        return match sql().next() {
            Some(file) => Err(mixed(&format!("{directory}/up.sql"), "Diesel's", file)),
            None => Ok(Some(MigrationTool::Diesel)),
        };
    }
    let Some(versioned) = sql().find(|name| is_versioned(name)) else {
        return Ok(None);
    };
    match sql().find(|name| refinery(name).is_none()) {
        None => Ok(Some(MigrationTool::Refinery)),
        Some(other) if is_versioned(other) => Err(unreadable_version(other)),
        Some(other) => Err(mixed(versioned, "refinery's", other)),
    }
}

fn unreadable_version(file: &str) -> Refusal {
    Refusal::new(
        format!("`{file}` begins as refinery's and Flyway's files do, but refinery cannot read its version"),
        "refinery's are `V<number>__<name>.sql`; `MigrationTool::Plain` runs all files in the order of names",
    )
}

/// The tool of a directory of files, if their sections tell it.
pub(super) fn by_sections(files: &[(Option<Sections>, String)]) -> Result<Option<MigrationTool>, Refusal> {
    for (sections, name) in files {
        let (tool, mark) = match sections {
            Some(Sections::Goose) => ("goose", "-- +goose Up"),
            Some(Sections::SqlMigrate) => ("sql-migrate", "-- +migrate Up"),
            _ => continue,
        };
        return Err(Refusal::new(
            format!("`{name}` holds sections of {tool} (`{mark}`), of which only a part must be run"),
            format!(
                "{tool} is not supported; `MigrationTool::Plain` runs its files whole, the way back included"
            ),
        ));
    }
    let Some((_, marked)) = files.iter().find(|(sections, _)| sections.is_some()) else {
        return Ok(None);
    };
    match files.iter().find(|(sections, _)| sections.is_none()) {
        None => Ok(Some(MigrationTool::Dbmate)),
        Some((_, other)) => Err(mixed(marked, "dbmate's, with `-- migrate:up`", other)),
    }
}

fn mixed(one: &str, whose: &str, other: &str) -> Refusal {
    Refusal::new(format!("`{one}` is {whose}, `{other}` is not"), CHOOSE)
}

/// The migrations of a directory in the order in which the tool runs them; without a tool in the order of their numbers
/// if all have one, else of their names.
///
/// What a tool passes over is passed over, and what it cannot do is refused.
pub(super) fn plan(tool: Option<MigrationTool>, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
    let files = || listing.files.iter().map(String::as_str);
    let mut migrations: Vec<Migration> = match tool {
        None | Some(MigrationTool::Plain) => files().filter_map(plain).collect(),
        Some(MigrationTool::Sqlx) => {
            files().filter_map(|name| sqlx(name).transpose()).collect::<Result<_, _>>()?
        }
        Some(MigrationTool::Diesel) => listing.directories.iter().map(diesel).collect::<Result<_, _>>()?,
        Some(MigrationTool::Refinery) => refinery_files(listing)?,
        Some(MigrationTool::GolangMigrate) => files().filter_map(golang_migrate).collect(),
        Some(MigrationTool::Dbmate) => files().filter_map(dbmate).collect(),
    };
    migrations.sort_by(|one, other| one.path.cmp(&other.path));
    match tool {
        None if migrations.iter().all(|migration| !migration.version.is_empty()) => {
            migrations.sort_by(|one, other| by_number(&one.version, &other.version));
        }
        None | Some(MigrationTool::Plain | MigrationTool::Dbmate) => {}
        Some(MigrationTool::Diesel) => migrations.sort_by(|one, other| one.version.cmp(&other.version)),
        Some(_) => migrations.sort_by(|one, other| by_number(&one.version, &other.version)),
    }
    if let Some(tool) = tool.filter(|tool| *tool != MigrationTool::Plain) {
        check(tool, &migrations)?;
    }
    Ok(migrations)
}

/// What the tool's table could not hold.
fn check(tool: MigrationTool, migrations: &[Migration]) -> Result<(), Refusal> {
    for (index, migration) in migrations.iter().enumerate() {
        let Migration { path, version, .. } = migration;
        if let Some(other) = migrations[..index].iter().find(|other| other.version == *version) {
            return Err(Refusal::new(
                format!("`{}` and `{path}` have the same version, {version}", other.path),
                "give each migration a version of its own",
            ));
        }
        let numbered = !matches!(tool, MigrationTool::Diesel | MigrationTool::Dbmate);
        if numbered && version.parse::<i64>().is_err() {
            return Err(Refusal::new(
                format!("`{path}` has a version that is too large, {version}"),
                format!("a version is at most {}", i64::MAX),
            ));
        }
        if tool == MigrationTool::Diesel && version.chars().count() > 50 {
            return Err(Refusal::new(
                format!("`{path}` has a version of more than 50 characters, `{version}`"),
                "the version is what is before the first underscore",
            ));
        }
    }
    Ok(())
}

fn plain(name: &str) -> Option<Migration> {
    if !name.ends_with(".sql") || name.ends_with(".down.sql") {
        return None;
    }
    let (version, rest) = numbered(name).filter(|(_, rest)| rest.starts_with('_')).unwrap_or(("", name));
    Some(Migration { path: name.to_owned(), version: unpadded(version), name: rest.to_owned() })
}

/// sqlx-core, `migrate/source.rs`: what has no underscore or does not end in `.sql` is ignored, all else must be numbered.
fn sqlx(file: &str) -> Result<Option<Migration>, Refusal> {
    let Some((version, rest)) = file.split_once('_').filter(|(_, rest)| rest.ends_with(".sql")) else {
        return Ok(None);
    };
    if numbered(version).is_none_or(|(_, rest)| !rest.is_empty()) {
        return Err(Refusal::new(
            format!("`{file}` has no number before its first underscore"),
            "sqlx wants `<number>_<name>.sql`",
        ));
    }
    if rest.ends_with(".down.sql") {
        return Ok(None);
    }
    let suffix = if rest.ends_with(".up.sql") { ".up.sql" } else { ".sql" };
    let name = rest.trim_end_matches(suffix).replace('_', " ");
    Ok(Some(Migration { path: file.to_owned(), version: unpadded(version), name }))
}

/// diesel's `migrations_internals`: each directory is a migration; its version ends at the underscore, without dashes.
fn diesel((directory, files): &(String, Vec<String>)) -> Result<Migration, Refusal> {
    if !files.iter().any(|file| file == "up.sql") {
        return Err(Refusal::new(
            format!("the directory `{directory}` holds no `up.sql`"),
            "Diesel takes every directory beside its migrations for one",
        ));
    }
    let (version, name) = directory.split_once('_').unwrap_or((directory, ""));
    Ok(Migration {
        path: format!("{directory}/up.sql"),
        version: version.replace('-', ""),
        name: name.to_owned(),
    })
}

/// refinery also runs migrations in Rust, and looks for them in all directories below.
fn refinery_files(listing: &Listing) -> Result<Vec<Migration>, Refusal> {
    let versioned = || listing.files.iter().filter(|name| is_versioned(name));
    if let Some(name) = versioned().find(|name| name.ends_with(".rs")) {
        return Err(Refusal::new(
            format!("`{name}` is a migration in Rust, which only refinery's own runner can run"),
            "run it on the URL of a sandbox, or keep such a migration in a directory of its own",
        ));
    }
    if let Some(name) = versioned().find(|name| name.ends_with(".sql") && refinery(name).is_none()) {
        return Err(unreadable_version(name));
    }
    let below = listing.directories.iter().find_map(|(directory, files)| {
        Some(format!("{directory}/{}", files.iter().find(|name| refinery(name).is_some())?))
    });
    if let Some(name) = below {
        return Err(Refusal::new(
            format!("`{name}` lies in a directory below, which only refinery's own runner looks into"),
            "keep all migrations in one directory",
        ));
    }
    Ok(listing.files.iter().filter_map(|name| refinery(name)).collect())
}

/// refinery-core, `util.rs`: `^[UV]\d+__\w+\.sql$`.
fn refinery(file: &str) -> Option<Migration> {
    let (version, rest) = numbered(file.strip_prefix(['U', 'V'])?)?;
    let name = rest.strip_prefix("__")?.strip_suffix(".sql")?;
    let is_word = !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    is_word.then(|| Migration { path: file.to_owned(), version: unpadded(version), name: name.to_owned() })
}

/// Begins as refinery's do, and Flyway's.
fn is_versioned(file: &str) -> bool {
    file.strip_prefix(['U', 'V']).and_then(numbered).is_some_and(|(_, rest)| rest.contains("__"))
}

/// golang-migrate, `source/parse.go`: `^[0-9]+_.*\.up\..*$`, with `sql` for the last.
fn golang_migrate(file: &str) -> Option<Migration> {
    let (version, rest) = numbered(file)?;
    let name = rest.strip_prefix('_')?.strip_suffix(".up.sql")?;
    Some(Migration { path: file.to_owned(), version: unpadded(version), name: name.to_owned() })
}

/// dbmate, `pkg/dbmate/db.go`: `^\d+.*\.sql$`; the version is kept with its zeros.
fn dbmate(file: &str) -> Option<Migration> {
    let (version, rest) = numbered(file)?;
    let name = rest.strip_suffix(".sql")?;
    Some(Migration { path: file.to_owned(), version: version.to_owned(), name: name.to_owned() })
}

/// The digits a name begins with, and the rest; none without digits.
fn numbered(name: &str) -> Option<(&str, &str)> {
    let end = name.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(name.len());
    (end > 0).then(|| name.split_at(end))
}

fn unpadded(digits: &str) -> String {
    match digits.trim_start_matches('0') {
        "" if !digits.is_empty() => "0".to_owned(),
        number => number.to_owned(),
    }
}

/// Numbers without leading zeros, of any length.
fn by_number(one: &str, other: &str) -> std::cmp::Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

/// The sections that a file is divided into, if it is.
pub(super) fn sections(contents: &[u8]) -> Option<Sections> {
    let marks = [
        (&b"migrate:up"[..], Sections::Dbmate),
        (b"+goose Up", Sections::Goose),
        (b"+migrate Up", Sections::SqlMigrate),
    ];
    marks.into_iter().find_map(|(mark, sections)| {
        let is_line = |at: usize| {
            let line = &contents[memchr::memrchr(b'\n', &contents[..at]).map_or(0, |end| end + 1)..at];
            line.strip_prefix(b"--").is_some_and(|blank| blank.trim_ascii().is_empty())
        };
        memchr::memmem::find_iter(contents, mark).any(is_line).then_some(sections)
    })
}

/// The part of a dbmate file to be run, at the lines it has in the file, and whether it is run in a transaction.
pub(super) fn dbmate_up(contents: &str) -> Result<(String, bool), Refusal> {
    let wrong = |seen: &str| {
        Refusal::new(
            seen,
            "dbmate wants one `-- migrate:up`, before any statement, and `-- migrate:down` after it",
        )
    };
    let lines: Vec<_> = contents.split_inclusive('\n').collect();
    let ups: Vec<_> = (0..lines.len()).filter(|at| directive(lines[*at], "migrate:up").is_some()).collect();
    let down = lines.iter().position(|line| directive(line, "migrate:down").is_some());
    let end = down.unwrap_or(lines.len());
    let up = match ups[..] {
        [] => return Err(wrong("it has no `-- migrate:up`")),
        [up] if up < end => up,
        [_] => return Err(wrong("its `-- migrate:down` is before its `-- migrate:up`")),
        _ => return Err(wrong("it has more than one `-- migrate:up`")),
    };
    let is_statement = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("--");
    if let Some(statement) = lines[..up].iter().find(|line| is_statement(line)) {
        return Err(wrong(&format!("`{}` is before its `-- migrate:up`", statement.trim())));
    }
    let in_transaction = !directive(lines[up], "migrate:up")
        .is_some_and(|mut options| options.any(|it| it == "transaction:false"));
    Ok(("\n".repeat(up) + &lines[up..end].concat(), in_transaction))
}

/// The options of a line `-- migrate:up …`.
fn directive<'a>(line: &'a str, name: &str) -> Option<impl Iterator<Item = &'a str>> {
    let rest = line.strip_prefix("--")?.trim_start().strip_prefix(name)?;
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.split_whitespace())
}

/// Whether a `metadata.toml` of Diesel's has the migration run in a transaction. A file that does not say so says no.
pub(super) fn diesel_in_transaction(metadata: &str) -> Result<bool, Refusal> {
    for line in metadata.lines() {
        let line = line.split('#').next().unwrap_or_default();
        if let Some((key, value)) = line.split_once('=')
            && key.trim() == "run_in_transaction"
        {
            return value.trim().parse().map_err(|_| {
                Refusal::new(
                    format!("`run_in_transaction` is `{}` in its `metadata.toml`", value.trim()),
                    "it is `true` or `false`",
                )
            });
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> Listing {
        let mut listing = Listing::default();
        for name in names {
            match name.split_once('/') {
                None => listing.files.push((*name).to_owned()),
                Some((directory, file)) => {
                    listing.directories.push((directory.to_owned(), vec![file.to_owned()]));
                }
            }
        }
        listing
    }

    fn order(tool: Option<MigrationTool>, names: &[&str]) -> Vec<String> {
        plan(tool, &listing(names)).unwrap().into_iter().map(|migration| migration.path).collect()
    }

    fn kept(tool: MigrationTool, name: &str) -> (String, String) {
        let migration = plan(Some(tool), &listing(&[name])).unwrap().remove(0);
        (migration.version, migration.name)
    }

    #[test]
    fn names_that_only_one_tool_uses_are_recognised() {
        use MigrationTool::{Diesel, Refinery};
        let tool = |names: &[&str]| by_names(&listing(names)).unwrap();
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
        let seen = |names: &[&str]| by_names(&listing(names)).unwrap_err().seen;
        assert_eq!(seen(&["V1__a.sql", "1_b.sql"]), "`V1__a.sql` is refinery's, `1_b.sql` is not");
        assert_eq!(seen(&["V1__a.sql", "R__b.sql"]), "`V1__a.sql` is refinery's, `R__b.sql` is not");
        assert_eq!(seen(&["1_a/up.sql", "b.sql"]), "`1_a/up.sql` is Diesel's, `b.sql` is not");
        assert!(seen(&["V1__a.sql", "V1.1__b.sql"]).contains("refinery cannot read its version"));
        let marked = [(Some(Sections::Dbmate), "1_a.sql".to_owned()), (None, "2_b.sql".to_owned())];
        assert!(by_sections(&marked).unwrap_err().seen.ends_with("`2_b.sql` is not"));
    }

    #[test]
    fn sections_are_recognised_at_the_beginning_of_a_line() {
        assert_eq!(sections(b"-- migrate:up\n"), Some(Sections::Dbmate));
        assert_eq!(sections(b"-- a\n--migrate:up transaction:false\n"), Some(Sections::Dbmate));
        assert_eq!(sections(b"\n-- +goose Up\n"), Some(Sections::Goose));
        assert_eq!(sections(b"-- +migrate Up"), Some(Sections::SqlMigrate));
        for none in ["", "select '-- migrate:up'", "  -- migrate:up", "-- see migrate:up", "migrate:up"] {
            assert_eq!(sections(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn each_tool_has_its_order() {
        use MigrationTool::{Dbmate, Diesel, GolangMigrate, Plain, Refinery, Sqlx};
        let numbered = ["10_c.sql", "9_b.sql", "1_a.sql"];
        assert_eq!(order(None, &numbered), ["1_a.sql", "9_b.sql", "10_c.sql"]);
        assert_eq!(order(Some(Sqlx), &numbered), ["1_a.sql", "9_b.sql", "10_c.sql"]);
        for tool in [Plain, Dbmate] {
            assert_eq!(order(Some(tool), &numbered), ["10_c.sql", "1_a.sql", "9_b.sql"]);
        }
        // One without a number, and all are names.
        assert_eq!(order(None, &["10_c.sql", "9_b.sql", "a.sql"]), ["10_c.sql", "9_b.sql", "a.sql"]);
        assert_eq!(order(Some(Refinery), &["V10__b.sql", "U2__a.sql", "x.sql"]), ["U2__a.sql", "V10__b.sql"]);
        let up = ["010_b.up.sql", "9_a.up.sql", "9_a.down.sql", "x.sql"];
        assert_eq!(order(Some(GolangMigrate), &up), ["9_a.up.sql", "010_b.up.sql"]);
        // Diesel's versions are texts.
        assert_eq!(order(Some(Diesel), &["9_a/up.sql", "10_b/up.sql"]), ["10_b/up.sql", "9_a/up.sql"]);
    }

    #[test]
    fn the_way_back_is_left_out() {
        let names = ["1_a.up.sql", "1_a.down.sql", "2_b.sql"];
        for tool in [None, Some(MigrationTool::Plain), Some(MigrationTool::Sqlx)] {
            assert_eq!(order(tool, &names), ["1_a.up.sql", "2_b.sql"], "{tool:?}");
        }
    }

    #[test]
    fn version_and_name_are_those_that_the_tool_keeps() {
        let pair = |version: &str, name: &str| (version.to_owned(), name.to_owned());
        assert_eq!(kept(MigrationTool::Sqlx, "007_add_a_table.up.sql"), pair("7", "add a table"));
        assert_eq!(kept(MigrationTool::Sqlx, "0_x.sql"), pair("0", "x"));
        let diesel = kept(MigrationTool::Diesel, "2024-01-02-030405_add_a_table/up.sql");
        assert_eq!(diesel, pair("20240102030405", "add_a_table"));
        assert_eq!(kept(MigrationTool::Refinery, "V01__add_é.sql"), pair("1", "add_é"));
        assert_eq!(kept(MigrationTool::GolangMigrate, "000001_a.b.up.sql"), pair("1", "a.b"));
        assert_eq!(kept(MigrationTool::Dbmate, "007_a.sql").0, "007");
    }

    #[test]
    fn what_a_table_cannot_hold_is_refused() {
        use MigrationTool::{Dbmate, Diesel, GolangMigrate, Refinery, Sqlx};
        let seen = |tool, names: &[&str]| plan(Some(tool), &listing(names)).unwrap_err().seen;
        assert_eq!(
            seen(Sqlx, &["1_a.sql", "01_b.up.sql"]),
            "`01_b.up.sql` and `1_a.sql` have the same version, 1"
        );
        assert!(seen(Refinery, &["V1__a.sql", "U1__a.sql"]).contains("same version"));
        assert!(seen(Diesel, &["1-1_a/up.sql", "11_b/up.sql"]).contains("same version"));
        assert!(seen(Dbmate, &["1_a.sql", "1_b.sql"]).contains("same version"));
        assert!(seen(GolangMigrate, &["99999999999999999999_a.up.sql"]).contains("too large"));
        assert!(seen(Sqlx, &["one_a.sql"]).contains("no number"));
        assert!(seen(Refinery, &["V1__a.sql", "V2__b.rs"]).contains("in Rust"));
        assert!(seen(Refinery, &["V1__a.sql", "V1.1__b.sql"]).contains("cannot read its version"));
        assert!(seen(Refinery, &["V1__a.sql", "more/V2__b.sql"]).contains("`more/V2__b.sql`"));
        assert!(seen(Diesel, &["1_a/up.sql", "empty/readme"]).contains("`empty` holds no `up.sql`"));
    }

    /// Whatever the names and their order in the directory: the same plan, sorted, nothing twice.
    #[test]
    fn the_order_of_a_directory_does_not_matter() {
        let mut seed = 1_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..500 {
            let mut versions: Vec<u64> = (0..random(12)).map(|_| random(2000)).collect();
            versions.sort_unstable();
            versions.dedup();
            let width = random(6) as usize;
            let mut names: Vec<_> =
                versions.iter().map(|version| format!("{version:0width$}_m{}.sql", random(9))).collect();
            let sorted = names.clone();
            for at in 0..names.len() {
                names.swap(at, random(sorted.len() as u64) as usize);
            }
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            assert_eq!(order(None, &names), sorted);
            assert_eq!(order(Some(MigrationTool::Sqlx), &names), sorted);
            let mut by_name = sorted;
            by_name.sort();
            assert_eq!(order(Some(MigrationTool::Plain), &names), by_name);
        }
    }

    #[test]
    fn the_part_to_run_keeps_its_lines() {
        let file = "-- a\n\n-- migrate:up\ncreate table a ();\n-- migrate:down\ndrop table a;\n";
        let (part, in_transaction) = dbmate_up(file).unwrap();
        assert_eq!(part, "\n\n-- migrate:up\ncreate table a ();\n");
        assert!(in_transaction);
        let (part, in_transaction) = dbmate_up("--migrate:up transaction:false\r\nvacuum;").unwrap();
        assert_eq!((part.as_str(), in_transaction), ("--migrate:up transaction:false\r\nvacuum;", false));
        let refused = |file| dbmate_up(file).unwrap_err().seen;
        assert_eq!(refused("select 1;"), "it has no `-- migrate:up`");
        assert_eq!(refused("select 1;\n-- migrate:up\n"), "`select 1;` is before its `-- migrate:up`");
        assert!(refused("-- migrate:down\n-- migrate:up\n").contains("before its `-- migrate:up`"));
        assert!(refused("-- migrate:up\n-- migrate:down\n-- migrate:up\n").contains("more than one"));
        // A word that only begins so.
        assert!(refused("-- migrate:upwards\n").contains("no `-- migrate:up`"));
    }

    #[test]
    fn diesel_metadata_is_read_as_diesel_does() {
        assert_eq!(diesel_in_transaction("# no\nrun_in_transaction = true # yes\n"), Ok(true));
        assert_eq!(diesel_in_transaction("run_in_transaction=false"), Ok(false));
        assert_eq!(diesel_in_transaction("# run_in_transaction = true\n"), Ok(false));
        assert!(diesel_in_transaction("run_in_transaction = no").is_err());
    }
}
