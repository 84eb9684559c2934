//! The migrations of a directory, in the order in which they run. Pure.

use super::plain;
use super::tool::{Listing, Migration, MigrationTool, Refusal};

/// Returns the migrations of a directory in the order in which the tool runs them, and refuses
/// those that it refuses.
pub(crate) fn in_order(tool: Option<MigrationTool>, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
    let Some(tool) = tool else {
        return plain::unnamed(listing);
    };
    let Some(rules) = tool.rules() else {
        return Ok(plain::migrations(listing));
    };
    let mut migrations = rules.migrations(listing)?;
    // By path first, so that a refusal too does not depend on the order of the directory's entries.
    migrations.sort_by(|one, other| one.path.cmp(&other.path));
    migrations.sort_by(|one, other| rules.order(one, other));
    for (index, migration) in migrations.iter().enumerate() {
        let key = rules.key(migration);
        if let Some(other) = migrations[..index].iter().find(|other| rules.key(other) == key) {
            return Err(Refusal::new(
                format!("`{}` and `{}` have the same version, {key}", other.path, migration.path),
                "give each migration a different version",
            ));
        }
    }
    rules.check(&migrations)?;
    Ok(migrations)
}

/// Queries for the tests of a tool.
#[cfg(test)]
impl MigrationTool {
    /// These names in the order in which the tool runs them.
    pub(super) fn order(self, names: &[&str]) -> Vec<String> {
        let migrations = in_order(Some(self), &Listing::of(names)).unwrap();
        migrations.into_iter().map(|migration| migration.path).collect()
    }

    /// The first migration among these names.
    pub(super) fn migration(self, names: &[&str]) -> Migration {
        in_order(Some(self), &Listing::of(names)).unwrap().remove(0)
    }

    /// Version and name as the bookkeeping table has them.
    pub(super) fn kept(self, name: &str) -> (String, String) {
        let migration = self.migration(&[name]);
        (migration.version, migration.name)
    }

    /// The reason why these names are refused.
    pub(super) fn refusal(self, names: &[&str]) -> String {
        in_order(Some(self), &Listing::of(names)).unwrap_err().cause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_directory_entries_does_not_matter() {
        let sorted = ["1_a.sql", "02_b.sql", "9_c.sql", "0010_d.sql", "200_e.sql"];
        for rotation in 0..sorted.len() {
            let mut names = sorted;
            names.rotate_left(rotation);
            names.swap(0, 2);
            let unnamed = in_order(None, &Listing::of(&names)).unwrap();
            assert_eq!(unnamed.into_iter().map(|migration| migration.path).collect::<Vec<_>>(), sorted);
            assert_eq!(MigrationTool::Sqlx.order(&names), sorted);
            let mut by_name = sorted;
            by_name.sort_unstable();
            assert_eq!(MigrationTool::Plain.order(&names), by_name);
        }
    }
}
