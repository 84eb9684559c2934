//! Types of a driver in a version whose feature of the library is off.
//!
//! The compiler would report such a parameter in every test, and cannot name the version.
//! Cargo.lock names it, so one message says what to do. A type that is not certainly a driver's is
//! left to the compiler, and so is a crate that depends on a version whose feature is on.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use syn::{Error, GenericArgument, PathArguments, PathSegment, Type};

use crate::diagnostics;
use crate::signature::{Filled, Function};

/// A driver whose types the library makes.
struct Driver {
    package: &'static str,
    /// Names that no other package is likely to have. One may have an argument.
    own_names: &'static [&'static str],
    /// Names that show the driver only with its path.
    common_names: &'static [&'static str],
    versions: &'static [Version],
}

/// A compatible range of versions: its number, the feature for it, and whether that is on.
type Version = (&'static str, &'static str, bool);

/// Declares the drivers: package, own names, common names, versions.
macro_rules! drivers {
    ($(
        $package:literal, [$($own:literal),*], [$($common:literal),*],
        {$($number:literal: $feature:literal),*};
    )*) => {
        &[$(Driver {
            package: $package,
            own_names: &[$($own),*],
            common_names: &[$($common),*],
            versions: &[$(($number, $feature, cfg!(feature = $feature))),*],
        }),*]
    };
}

const DRIVERS: &[Driver] = drivers! {
    "sqlx",
        ["PgPool", "PgConnection", "PgConnectOptions", "PgPoolOptions", "PoolConnection<Postgres>"], [],
        {"0.9": "sqlx", "0.8": "sqlx-0-8"};
    "sqlx",
        ["MySqlPool", "MySqlConnection", "MySqlConnectOptions", "MySqlPoolOptions", "PoolConnection<MySql>"],
        [],
        {"0.9": "sqlx-mysql", "0.8": "sqlx-0-8-mysql"};
    "sea-orm", ["DatabaseConnection"], [], {"2": "sea-orm", "1": "sea-orm-1"};
    "sea-orm", ["DatabaseConnection"], [], {"2": "sea-orm-mysql", "1": "sea-orm-1-mysql"};
    "diesel", ["PgConnection"], [], {"2": "diesel"};
    "diesel", ["MysqlConnection"], [], {"2": "diesel-mysql"};
    "diesel-async", ["AsyncPgConnection"], [],
        {"0.9": "diesel-async", "0.8": "diesel-async-0-8", "0.7": "diesel-async-0-7"};
    "diesel-async", ["AsyncMysqlConnection"], [],
        {"0.9": "diesel-async-mysql", "0.8": "diesel-async-0-8-mysql", "0.7": "diesel-async-0-7-mysql"};
    "mysql", [], ["Conn", "Pool", "Opts"], {"28": "mysql"};
    "mysql_async", [], ["Conn", "Pool", "Opts"], {"0.37": "mysql_async"};
    "tokio-postgres", [], ["Client", "Config"], {"0.7": "tokio-postgres"};
    "postgres", [], ["Client", "Config"], {"0.19": "postgres"};
    "redis", [], ["Client", "Connection", "MultiplexedConnection", "ConnectionManager"],
        {"1": "redis"};
    "fred", [], ["Client", "Config"], {"10": "fred"};
    "deadpool-postgres", [], ["Pool"], {"0.14": "deadpool-postgres"};
};

/// A parameter that needs a feature which is off.
pub(crate) enum Missing {
    Report(Error),
    /// Another test of the crate has reported it.
    Reported,
}

/// Returns the first parameter of a driver's type whose feature is off.
pub(crate) fn missing(function: &Function, filled: &[Filled<'_>], package: &Path) -> Option<Missing> {
    let types = || {
        filled.iter().filter_map(|filled| match filled {
            Filled::FromDatabase(parameter) => Some(parameter.ty),
            Filled::FromCase(_) => None,
        })
    };
    types().find(|ty| drivers(ty).next().is_some())?;
    let lock = package.ancestors().find_map(|root| fs::read_to_string(root.join("Cargo.lock")).ok())?;
    let name = std::env::var("CARGO_PKG_NAME").ok()?;
    let error = types().find_map(|ty| off(ty, &lock, &name))?;
    // The compiler process expands one crate. A test that may be configured away reports nothing
    // for others.
    static REPORTED: AtomicBool = AtomicBool::new(false);
    let certain = !function
        .attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr"));
    match certain && REPORTED.swap(true, Ordering::Relaxed) {
        true => Some(Missing::Reported),
        false => Some(Missing::Report(error)),
    }
}

/// Returns the drivers of which this may be a type, as it is written.
fn drivers(ty: &Type) -> impl Iterator<Item = &'static Driver> {
    let path = match ty {
        Type::Path(ty) if ty.qself.is_none() => Some(&ty.path),
        _ => None,
    };
    let names: Vec<_> = path.iter().flat_map(|path| &path.segments).map(name).collect();
    DRIVERS.iter().filter(move |driver| match &names[..] {
        [name] => driver.own_names.contains(&name.as_str()),
        [of, .., name] => {
            *of == driver.package.replace('-', "_")
                && driver.own_names.iter().chain(driver.common_names).any(|known| known == name)
        }
        [] => false,
    })
}

/// Returns `PoolConnection<MySql>` for `PoolConnection<sqlx::MySql>`.
fn name(segment: &PathSegment) -> String {
    let argument = match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => arguments.args.first(),
        _ => None,
    };
    match argument {
        Some(GenericArgument::Type(Type::Path(argument))) => {
            let last = argument.path.segments.last().map(|last| last.ident.to_string());
            format!("{}<{}>", segment.ident, last.unwrap_or_default())
        }
        _ => segment.ident.to_string(),
    }
}

/// Returns the message for a type whose feature is off, in a crate with this Cargo.lock.
fn off(ty: &Type, lock: &str, crate_name: &str) -> Option<Error> {
    let (mut off, mut unknown) = (Vec::new(), None);
    for driver in drivers(ty) {
        for version in direct_versions(lock, crate_name, driver.package) {
            match driver.versions.iter().find(|(number, ..)| is_of(version, number)) {
                Some((_, _, true)) => return None,
                Some((number, feature, false)) => off.push((driver.package, *number, *feature)),
                None => {
                    let known: Vec<_> = driver.versions.iter().map(|(number, ..)| *number).collect();
                    unknown.get_or_insert_with(|| {
                        diagnostics::version_without_feature(ty, driver.package, version, &known)
                    });
                }
            }
        }
    }
    let Some(&(package, number, _)) = off.last() else { return unknown };
    // A driver of several databases may have one type for all of them, and a feature for each.
    let of_version = off.iter().filter(|(of, version, _)| (*of, *version) == (package, number));
    let features: Vec<_> = of_version.map(|(.., feature)| *feature).collect();
    Some(diagnostics::feature_is_off(ty, package, number, &features))
}

fn is_of(version: &str, number: &str) -> bool {
    version.strip_prefix(number).is_some_and(|rest| rest.starts_with('.'))
}

/// Returns the versions of a package on which a crate depends directly.
fn direct_versions<'a>(lock: &'a str, crate_name: &str, package: &str) -> Vec<&'a str> {
    let packages = || lock.split("[[package]]").skip(1);
    let is_crate =
        |block: &&str| value(block, "name") == Some(crate_name) && value(block, "source").is_none();
    let dependencies = packages().find(is_crate).and_then(|block| block.split_once("dependencies = ["));
    let lines = dependencies.map(|(_, lines)| lines.lines()).into_iter().flatten();
    // The version is named where the lock file has several.
    let only = || {
        let mut named = packages().filter(|block| value(block, "name") == Some(package));
        named.find_map(|block| value(block, "version"))
    };
    let versions = lines.filter_map(|line| {
        let line = line.trim().strip_prefix('"')?.strip_suffix("\",")?;
        let mut words = line.split(' ');
        (words.next() == Some(package)).then(|| words.next().or_else(only)).flatten()
    });
    versions.collect()
}

/// Returns the value of a key in a package of Cargo.lock.
fn value<'a>(package: &'a str, key: &str) -> Option<&'a str> {
    package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    /// The lock file of a crate `shop` with these dependencies.
    fn lock(dependencies: &str) -> String {
        let package = |name: &str, version: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"registry\"\n\n")
        };
        let all = [package("shop", "9.9.9"), package("sqlx", "0.8.6"), package("sea-orm", "2.0.4")];
        let all = [&all.concat(), &*package("diesel", "1.4.8")].concat();
        let crate_ = "[[package]]\nname = \"shop\"\nversion = \"0.1.0\"\ndependencies = [\n";
        format!("version = 4\n\n{all}{crate_}{dependencies}]\n")
    }

    fn message(ty: &Type, dependencies: &str) -> Option<String> {
        off(ty, &lock(dependencies), "shop").map(|error| error.to_string())
    }

    #[test]
    fn a_type_of_a_version_without_its_feature_is_reported() {
        let enable = "the parameter is of sqlx 0.8: enable `sqlx-0-8`, or take `url: String`";
        for ty in [parse_quote!(PgPool), parse_quote!(sqlx::PgPool), parse_quote!(::sqlx::postgres::PgPool)] {
            for dependencies in [" \"sqlx\",\n", " \"serde\",\n \"sqlx 0.8.6\",\n"] {
                let message = message(&ty, dependencies).unwrap();
                assert!(message.starts_with(enable), "{message}");
            }
        }
        let mysql = "the parameter is of sqlx 0.8: enable `sqlx-0-8-mysql`, or take `url: String`";
        for ty in [parse_quote!(MySqlPool), parse_quote!(PoolConnection<sqlx::MySql>)] {
            let message = message(&ty, " \"sqlx\",\n").unwrap();
            assert!(message.starts_with(mysql), "{message}");
        }
        let orm = message(&parse_quote!(DatabaseConnection), " \"sea-orm\",\n").unwrap();
        assert!(orm.contains("sea-orm 2: enable `sea-orm` or `sea-orm-mysql`, or"), "{orm}");
        let old = message(&parse_quote!(PgConnection), " \"diesel\",\n").unwrap();
        assert!(old.starts_with("the parameter is of diesel 1.4.8, for which there is no feature"), "{old}");
    }

    #[test]
    fn a_type_that_may_be_another_is_left_to_the_compiler() {
        let sqlx = " \"sqlx\",\n";
        for ty in [
            parse_quote!(Client),
            parse_quote!(String),
            parse_quote!(crate::PgPool),
            parse_quote!(sqlx::SqlitePool),
            parse_quote!(&PgPool),
        ] {
            assert_eq!(message(&ty, sqlx), None);
        }
        assert_eq!(message(&parse_quote!(PgPool), " \"serde\",\n"), None);
    }

    /// The manifest of the library, for agreement.
    #[test]
    fn each_version_has_a_feature() {
        let manifest = include_str!("../../sandbox/Cargo.toml");
        for (_, feature, _) in DRIVERS.iter().flat_map(|driver| driver.versions) {
            let line = manifest.lines().find(|line| line.starts_with(&format!("{feature} = [")));
            let forwarded = format!("\"sandboxed-db-macros?/{feature}\"");
            assert!(line.is_some_and(|line| line.contains(&forwarded)), "{feature}: {line:?}");
        }
    }
}
