//! Files of no tool, or of nobody knows which: whole, and nothing is kept of them.

use super::tool::{Listing, Migration, by_number, numbered, unpadded};

/// In the order of their names; without the way back.
pub(super) fn migrations(listing: &Listing) -> Vec<Migration> {
    let mut migrations: Vec<_> = listing.files().filter_map(migration).collect();
    migrations.sort_by(|one, other| one.path.cmp(&other.path));
    migrations
}

/// Where no tool is named or recognised: in the order of their numbers if all have one, as with the tools that share these
/// names, else of their names.
pub(super) fn unnamed(listing: &Listing) -> Vec<Migration> {
    let mut migrations = migrations(listing);
    if migrations.iter().all(|migration| !migration.version.is_empty()) {
        migrations.sort_by(|one, other| by_number(&one.version, &other.version));
    }
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
        unnamed(&Listing::of(names)).into_iter().map(|migration| migration.path).collect()
    }

    #[test]
    fn numbers_are_an_order_only_if_no_tool_is_named_and_all_have_one() {
        let numbered = ["10_c.sql", "9_b.sql", "1_a.sql"];
        assert_eq!(order(&numbered), ["1_a.sql", "9_b.sql", "10_c.sql"]);
        assert_eq!(Plain.order(&numbered), ["10_c.sql", "1_a.sql", "9_b.sql"]);
        // One without a number, and all are names.
        assert_eq!(order(&["10_c.sql", "9_b.sql", "a.sql"]), ["10_c.sql", "9_b.sql", "a.sql"]);
    }

    #[test]
    fn the_way_back_is_left_out() {
        let names = ["1_a.up.sql", "1_a.down.sql", "2_b.sql"];
        assert_eq!(order(&names), ["1_a.up.sql", "2_b.sql"]);
        assert_eq!(Plain.order(&names), ["1_a.up.sql", "2_b.sql"]);
    }
}
