//! Files of no tool, or of one that is not known: whole, and without bookkeeping.

use super::down;
use super::prisma;
use super::tool::{Listing, Migration, Refusal, by_number, numbered, unpadded};

/// Returns the migrations in the order of their names, without `.down.sql` files.
pub(super) fn migrations(listing: &Listing) -> Vec<Migration> {
    let mut migrations: Vec<_> = listing.files().filter_map(migration).collect();
    migrations.sort_by(|one, other| one.path.cmp(&other.path));
    migrations
}

/// Returns the migrations where no tool is named or recognised: in the order of their numbers if
/// all have one, as with the tools that share these names, else in that of their names.
pub(super) fn unnamed(listing: &Listing) -> Result<Vec<Migration>, Refusal> {
    check_suffixes(listing)?;
    down::check_directories(listing)?;
    down::check_names(listing)?;
    let mut migrations = migrations(listing);
    migrations.retain(|migration| !down::is_counterpart(&migration.path, listing));
    if let Some((_, path)) = listing.below(prisma::SCRIPT).next() {
        return match migrations.first() {
            Some(other) => Err(Refusal::mixed(&path, "a directory", &other.path)),
            None => Ok(directories(listing)),
        };
    }
    if migrations.iter().all(|migration| !migration.version.is_empty()) {
        migrations.sort_by(|one, other| by_number(&one.version, &other.version));
    }
    Ok(migrations)
}

/// Refuses files of SQL that would be ignored for the suffix of their names.
fn check_suffixes(listing: &Listing) -> Result<(), Refusal> {
    let is_other = |name: &&str| {
        let lower = name.to_lowercase();
        (lower.ends_with(".sql") && !name.ends_with(".sql"))
            || [".sql.gz", ".sql.zst"].iter().any(|suffix| lower.ends_with(suffix))
    };
    match listing.files().find(is_other) {
        None => Ok(()),
        Some(name) => Err(Refusal::new(
            format!("`{name}` does not end in `.sql`, and would not run"),
            "rename it; a compressed file runs as a seed only",
        )),
    }
}

/// Directories that each hold a `migration.sql`, in the order of their names.
fn directories(listing: &Listing) -> Vec<Migration> {
    let below = listing.below(prisma::SCRIPT);
    let mut migrations: Vec<_> =
        below.map(|(name, path)| Migration { path, version: String::new(), name: name.to_owned() }).collect();
    migrations.sort_by(|one, other| one.path.cmp(&other.path));
    migrations
}

fn migration(name: &str) -> Option<Migration> {
    if !name.ends_with(".sql") || name.ends_with(".down.sql") {
        return None;
    }
    let (version, rest) = numbered(name).filter(|(_, rest)| rest.starts_with('_')).unwrap_or(("", name));
    Some(Migration { path: name.to_owned(), version: unpadded(version), name: rest.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::tool::MigrationTool::Plain;

    fn order(names: &[&str]) -> Vec<String> {
        unnamed(&Listing::of(names)).unwrap().into_iter().map(|migration| migration.path).collect()
    }

    #[test]
    fn numbers_are_an_order_if_all_names_have_one() {
        let numbered = ["10_c.sql", "9_b.sql", "1_a.sql"];
        assert_eq!(order(&numbered), ["1_a.sql", "9_b.sql", "10_c.sql"]);
        assert_eq!(Plain.order(&numbered), ["10_c.sql", "1_a.sql", "9_b.sql"]);
        assert_eq!(order(&["10_c.sql", "9_b.sql", "a.sql"]), ["10_c.sql", "9_b.sql", "a.sql"]);
    }

    #[test]
    fn the_down_migration_of_a_pair_is_left_out() {
        let names = ["1_a.up.sql", "1_a.down.sql", "2_b.sql"];
        assert_eq!(order(&names), ["1_a.up.sql", "2_b.sql"]);
        assert_eq!(Plain.order(&names), ["1_a.up.sql", "2_b.sql"]);
        assert_eq!(order(&["1.do.a.sql", "1.undo.a.sql", "2.do.b.sql"]), ["1.do.a.sql", "2.do.b.sql"]);
        assert_eq!(order(&["1_a_up.sql", "1_a_down.sql"]), ["1_a_up.sql"]);
    }

    #[test]
    fn sql_under_another_suffix_is_refused() {
        for name in ["2_b.SQL", "2_b.sql.gz"] {
            let cause = unnamed(&Listing::of(&["1_a.sql", name])).unwrap_err().cause;
            assert_eq!(cause, format!("`{name}` does not end in `.sql`, and would not run"));
        }
    }

    #[test]
    fn directories_of_migrations_are_ordered_by_name() {
        assert_eq!(
            order(&["2_b/migration.sql", "1_a/migration.sql"]),
            ["1_a/migration.sql", "2_b/migration.sql"]
        );
        assert!(unnamed(&Listing::of(&["1_a/migration.sql", "b.sql"])).is_err());
    }
}
