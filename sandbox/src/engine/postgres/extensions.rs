//! Extensions that are not installed, and the distribution's packages that have them.

use crate::engine::installation::Installation;
use crate::engine::packages;

/// Extensions whose package has another name than theirs, without `postgresql-<version>-`. The
/// package of PostGIS has its own version behind.
const PACKAGES: [(&str, &str); 20] = [
    ("address_standardizer", "postgis-*"),
    ("address_standardizer_data_us", "postgis-*"),
    ("hstore_pllua", "pllua"),
    ("hstore_plluau", "pllua"),
    ("londiste", "londiste-sql"),
    ("pgautofailover", "auto-failover"),
    ("pglogical_origin", "pglogical"),
    ("pgpool_adm", "pgpool2"),
    ("pgpool_recovery", "pgpool2"),
    ("pgpool_regclass", "pgpool2"),
    ("pgq", "pgq3"),
    ("pldbgapi", "pldebugger"),
    ("plluau", "pllua"),
    ("pointcloud_postgis", "pointcloud"),
    ("postgis", "postgis-*"),
    ("postgis_raster", "postgis-*"),
    ("postgis_sfcgal", "postgis-*"),
    ("postgis_tiger_geocoder", "postgis-*"),
    ("postgis_topology", "postgis-*"),
    ("slony1_funcs", "slony1-2"),
];

/// Languages, and what extensions for them have in their names; the packages are
/// `postgresql-<language>-<version>`.
const LANGUAGES: [(&str, &str); 3] = [("plpython3u", "plpython3"), ("plperl", "plperl"), ("pltcl", "pltcl")];

/// Returns the advice for a message of the server about an extension that it does not have.
pub(super) fn advice(message: &str, installation: &Installation) -> Option<String> {
    let extension = missing(message)?;
    let version = installation.major();
    // The index of this machine is not that of an image.
    if installation.image().is_some() {
        return Some(format!(
            "use an image that has the extension; to one of Debian or Ubuntu its package can be added, as by \
             `Snapshot::package(\"postgresql-{version}-NAME\")` (`--package postgresql-{version}-NAME`)"
        ));
    }
    let found = packages::names("postgresql-").and_then(|index| package(extension, version, &index));
    Some(match found {
        Some(package) => format!(
            "the package `{package}` has it: add `Snapshot::package(\"{package}\")` (`--package {package}`), which needs no \
             installation"
        ),
        None => "correct the name, or install the extension's package for the server's version, on Debian `postgresql-VERSION-NAME`"
            .to_owned(),
    })
}

/// Returns the name of the extension that the server does not have.
fn missing(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("extension \"")?;
    Some(rest.split_once("\" is not available")?.0)
}

/// Returns the package that has the extension, if it is in the index.
fn package(extension: &str, version: u32, index: &[String]) -> Option<String> {
    if let Some((_, language)) = LANGUAGES.iter().find(|(part, _)| extension.contains(part)) {
        let package = format!("postgresql-{language}-{version}");
        return index.contains(&package).then_some(package);
    }
    let prefix = format!("postgresql-{version}-");
    let known = PACKAGES.iter().find(|(name, _)| *name == extension);
    let candidates = match known {
        Some((_, package)) => vec![(*package).to_owned()],
        None => names(extension),
    };
    candidates.iter().find_map(|name| match name.strip_suffix('*') {
        Some(stem) => {
            let number = |package: &&String| -> Option<u32> {
                package.strip_prefix(&prefix)?.strip_prefix(stem)?.parse().ok()
            };
            index.iter().filter(|package| number(package).is_some()).max_by_key(number).cloned()
        }
        None => {
            let package = format!("{prefix}{name}");
            index.contains(&package).then_some(package)
        }
    })
}

/// Returns names that the package of an extension may have: packages leave out `pg_`, or add it.
fn names(extension: &str) -> Vec<String> {
    let name = extension.to_ascii_lowercase().replace('_', "-");
    let short = name.strip_prefix("pg-").unwrap_or(&name).to_owned();
    vec![name.clone(), short.clone(), format!("pg{short}"), format!("pg-{short}"), name.replace('-', "")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_found_by_the_names_of_debian() {
        let index = [
            "postgresql-15-auto-failover",
            "postgresql-15-cron",
            "postgresql-15-pg-qualstats",
            "postgresql-15-pgq3",
            "postgresql-15-pgsphere",
            "postgresql-15-pgvector",
            "postgresql-15-plpgsql-check",
            "postgresql-15-postgis-3",
            "postgresql-15-postgis-3-scripts",
            "postgresql-15-tablelog",
            "postgresql-15-unit",
            "postgresql-16-hypopg",
            "postgresql-plperl-15",
            "postgresql-plpython3-15",
        ];
        let index = index.map(str::to_owned);
        for (extension, expected) in [
            ("pg_cron", Some("postgresql-15-cron")),
            ("pg_qualstats", Some("postgresql-15-pg-qualstats")),
            ("pg_sphere", Some("postgresql-15-pgsphere")),
            ("pgautofailover", Some("postgresql-15-auto-failover")),
            ("pgq", Some("postgresql-15-pgq3")),
            ("plperlu", Some("postgresql-plperl-15")),
            ("jsonb_plpython3u", Some("postgresql-plpython3-15")),
            ("plpgsql_check", Some("postgresql-15-plpgsql-check")),
            ("postgis_topology", Some("postgresql-15-postgis-3")),
            ("table_log", Some("postgresql-15-tablelog")),
            ("unit", Some("postgresql-15-unit")),
            ("vector", Some("postgresql-15-pgvector")),
            ("hypopg", None),
            ("pltclu", None),
        ] {
            assert_eq!(package(extension, 15, &index).as_deref(), expected, "{extension}");
        }
    }

    #[test]
    fn other_messages_are_not_about_packages() {
        assert_eq!(missing("ERROR:  relation \"x\" does not exist"), None);
        assert_eq!(missing("ERROR:  extension \"x\" is not available"), Some("x"));
    }
}
