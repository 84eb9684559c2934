//! The migrations of a directory, in the order in which they are run. Pure.

use super::plain;
use super::tool::{Listing, Migration, MigrationTool, Refusal};

/// The migrations of a directory in the order in which the tool runs them, or what it cannot keep in its table.
pub(crate) fn in_order(tool: Option<MigrationTool>, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
    let Some(tool) = tool else {
        return Ok(plain::unnamed(listing));
    };
    let Some(tool) = tool.known() else {
        return Ok(plain::migrations(listing));
    };
    let mut migrations = tool.migrations(listing)?;
    // By path first, so that the directory's own order does not show even in what is refused.
    migrations.sort_by(|one, other| one.path.cmp(&other.path));
    migrations.sort_by(|one, other| tool.order(one, other));
    for (index, migration) in migrations.iter().enumerate() {
        let Migration { path, version, .. } = migration;
        if let Some(other) = migrations[..index].iter().find(|other| other.version == *version) {
            return Err(Refusal::new(
                format!("`{}` and `{path}` have the same version, {version}", other.path),
                "give each migration a version of its own",
            ));
        }
        tool.check(migration)?;
    }
    Ok(migrations)
}

/// What a test of a tool asks for.
#[cfg(test)]
impl MigrationTool {
    /// These names as the tool runs them.
    pub(super) fn order(self, names: &[&str]) -> Vec<String> {
        let migrations = in_order(Some(self), &Listing::of(names)).unwrap();
        migrations.into_iter().map(|migration| migration.path).collect()
    }

    /// Version and name as the tool keeps them.
    pub(super) fn kept(self, name: &str) -> (String, String) {
        let migration = in_order(Some(self), &Listing::of(&[name])).unwrap().remove(0);
        (migration.version, migration.name)
    }

    /// Why these names are refused.
    pub(super) fn refusal(self, names: &[&str]) -> String {
        in_order(Some(self), &Listing::of(names)).unwrap_err().seen
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::migration::tool::TOOLS;

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
            let unnamed = in_order(None, &Listing::of(&names)).unwrap();
            assert_eq!(unnamed.into_iter().map(|migration| migration.path).collect::<Vec<_>>(), sorted);
            assert_eq!(MigrationTool::Sqlx.order(&names), sorted);
            let mut by_name = sorted;
            by_name.sort();
            assert_eq!(MigrationTool::Plain.order(&names), by_name);
        }
    }

    proptest! {
        /// Whatever names a directory holds, it is run in some order or refused, and no file twice.
        #[test]
        fn any_names_are_survived(names in prop::collection::vec("([UV]?[0-9]{0,25}_{0,2}[a-zé]{0,3}(\\.up|\\.down)?(\\.sql|\\.rs|/up\\.sql)?)", 0..8)) {
            let names: Vec<_> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
            let listing = Listing::of(&names);
            let _ = crate::migration::by_names(&listing);
            for tool in [None, Some(MigrationTool::Plain)].into_iter().chain(TOOLS.map(|(tool, _)| Some(tool))) {
                if let Ok(migrations) = in_order(tool, &listing) {
                    let mut paths: Vec<_> = migrations.iter().map(|migration| &migration.path).collect();
                    paths.sort();
                    assert!(paths.iter().all(|path| names.contains(&path.as_str())), "{paths:?}");
                }
            }
        }
    }
}
