//! Messages of the attribute.
//!
//! Each one points at the mistaken token, names the mistake, and then says what to write. Mistakes
//! are collected, so that one compilation shows all of them.

use std::fmt::Write as _;

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::{Error, Ident, LitStr, Path};

/// Accepted functions, shown with every mistake in a signature.
const ACCEPTED: &str = "accepted:
    fn name(db: Sandbox)
    fn name(db: &Sandbox)
    fn name(url: String)
    fn name(client: Client, db: Sandbox)
each with any types that implement `FromSandbox`, as `async fn` or not, and with `-> Result<(), E>` or not";

/// The mistakes so far.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics(Option<Error>);

impl Diagnostics {
    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(earlier) => earlier.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// Keeps a mistake, or returns the value.
    pub(crate) fn collect<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// Returns one `compile_error!` per mistake, if there are any.
    pub(crate) fn into_compile_errors(self) -> Option<TokenStream> {
        self.0.map(Error::into_compile_error)
    }

    #[cfg(test)]
    pub(crate) fn messages(self) -> Vec<String> {
        self.0.into_iter().flatten().map(|error| error.to_string()).collect()
    }
}

// Arguments

pub(crate) fn not_an_argument(at: Span, valid: &[&str]) -> Error {
    Error::new(at, format!("expected the name of an argument\n{}", valid_arguments(valid)))
}

pub(crate) fn unknown_argument(name: &Ident, valid: &[&str]) -> Error {
    let written = name.to_string();
    let mut message = format!("unknown argument `{written}`");
    if let Some(meant) = in_another_attribute(&written) {
        return Error::new(name.span(), format!("{message}; {meant}"));
    }
    if let Some(suggestion) = closest(&written, valid) {
        let _ = write!(message, ", did you mean `{suggestion}`?");
    }
    Error::new(name.span(), format!("{message}\n{}", valid_arguments(valid)))
}

/// Returns the answer to an argument of `#[sqlx::test]`.
fn in_another_attribute(name: &str) -> Option<&'static str> {
    Some(match name {
        "fixtures" => {
            "write `seed = [\"tests/fixtures/users.sql\"]`: files of SQL, with their paths from the package's directory, run \
             in this order after the migrations"
        }
        "migrator" => {
            "leave it out if it embeds `migrations`, which is found without an argument; else name the directory that it \
             embeds, as in `migrations_of(Sqlx, \"db/migrations\")`"
        }
        _ => return None,
    })
}

/// An unknown name with a list, which may be the name of a parameter too.
pub(crate) fn unknown_parameter(name: &Ident, valid: &[&str], parameters: &[String]) -> Error {
    if in_another_attribute(&name.to_string()).is_some() {
        return unknown_argument(name, valid);
    }
    let mut error = unknown_argument(name, valid).to_string();
    let list = parameters.join("`, `");
    let _ = write!(error, "\nor the name of a parameter that gets its own database: `{list}`");
    Error::new(name.span(), error)
}

pub(crate) fn argument_of_the_test(name: &Ident) -> Error {
    Error::new(
        name.span(),
        format!("`{name}` applies to the whole test; write it outside the list of a parameter"),
    )
}

pub(crate) fn database_of_nobody(at: impl ToTokens) -> Error {
    let message = "every parameter has its own database, so the arguments beside the lists describe none";
    Error::new_spanned(at, message)
}

pub(crate) fn unnamed_engine(ty: impl ToTokens, parameter: Option<&Ident>) -> Error {
    let written = ty.to_token_stream().to_string().replace(' ', "");
    let list = parameter.map_or("engine = Postgres".to_owned(), |name| format!("{name}(engine = Postgres)"));
    let message = format!(
        "each engine of this test makes a `{written}`, and nothing names the one for this parameter; write `{list}`\n\
         engines are: `Postgres`, `MariaDb`, `MySql`, `Redis`, `Sqlite`, and types that implement `Engine`"
    );
    Error::new_spanned(ty, message)
}

pub(crate) fn engine_without_toml(file: &LitStr) -> Error {
    Error::new(
        file.span(),
        "an engine that a file describes needs the feature `toml` of `sandboxed-db`:\n\
         cargo add --dev sandboxed-db --features toml",
    )
}

pub(crate) fn engines_of_one_name(engine: impl ToTokens, name: &str) -> Error {
    let message = format!(
        "an earlier engine names its test `{name}` already; return this engine from a function, whose name its test gets, \
         as in `engine = [Postgres, with_checksums()]`"
    );
    Error::new_spanned(engine, message)
}

pub(crate) fn duplicate_version(version: &LitStr) -> Error {
    Error::new(version.span(), format!("version `{}` is in the list twice", version.value()))
}

pub(crate) fn duplicate_argument(name: &Ident, hint: Option<&str>) -> Error {
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    Error::new(name.span(), format!("argument `{name}` is given twice{hint}"))
}

pub(crate) fn malformed_argument(at: Span, expected: &str, example: &str) -> Error {
    Error::new(at, format!("expected {expected}, as in {example}"))
}

pub(crate) fn no_such_file(path: &LitStr, neighbours: &[String]) -> Error {
    let written = path.value();
    let (directory, name) =
        written.rsplit_once('/').map_or((None, &*written), |(directory, name)| (Some(directory), name));
    let mut message = format!("`{written}` does not exist in the package's directory");
    let neighbours: Vec<_> = neighbours.iter().map(String::as_str).collect();
    if let Some(suggestion) = closest(name, &neighbours) {
        let suggestion =
            directory.map_or(suggestion.to_owned(), |directory| format!("{directory}/{suggestion}"));
        let _ = write!(message, ", did you mean `{suggestion}`?");
    }
    message.push_str(
        "\nname a file that is generated later in a function, as in `snapshot = crate::testing::shop`",
    );
    Error::new(path.span(), message)
}

pub(crate) fn quoted_engine(name: &LitStr, engine: &str) -> Error {
    let message = format!(
        "an engine is a type: write `engine = {engine}`; a string names a file of TOML that describes one"
    );
    Error::new(name.span(), message)
}

pub(crate) fn not_a_directory(path: &LitStr) -> Error {
    let message = format!("`{}` is a file; `migrations` names the directory of migrations", path.value());
    Error::new(path.span(), message)
}

pub(crate) fn unquoted_unit(at: Span, literal: &dyn ToTokens) -> Error {
    Error::new(at, format!("a number with a unit is written as a string: \"{}\"", literal.to_token_stream()))
}

pub(crate) fn setting_without_value(at: Span, name: &str) -> Error {
    Error::new(at, format!("expected `=` and a value after `{name}`, as in `max_connections = 50`"))
}

pub(crate) fn duplicate_setting(at: Span, name: &str) -> Error {
    Error::new(at, format!("setting `{name}` is given twice"))
}

// Signature

pub(crate) fn not_a_function(at: Span) -> Error {
    Error::new(at, format!("`#[sandboxed_db]` goes on a function\n{ACCEPTED}"))
}

pub(crate) fn other_test_attribute(path: &Path) -> Error {
    let written = display(path);
    let message = format!(
        "remove `#[{written}]`: `#[sandboxed_db]` makes the function a test, and runs an `async fn` on its own \
         runtime"
    );
    Error::new_spanned(path, message)
}

pub(crate) fn repeated_attribute(path: &Path) -> Error {
    Error::new_spanned(path, "`#[sandboxed_db]` is given twice; write all arguments in one")
}

pub(crate) fn qualifier(tokens: impl ToTokens, keyword: &str) -> Error {
    signature(tokens, &format!("a test cannot be `{keyword}`"))
}

pub(crate) fn feature_is_off(ty: impl ToTokens, driver: &str, version: &str, features: &[&str]) -> Error {
    let message = format!(
        "the parameter is of {driver} {version}: enable `{}`, or take `url: String`\nrun `cargo add --dev sandboxed-db \
         --features {}`",
        features.join("` or `"),
        features.first().copied().unwrap_or_default()
    );
    Error::new_spanned(ty, message)
}

pub(crate) fn version_without_feature(
    ty: impl ToTokens,
    driver: &str,
    version: &str,
    known: &[&str],
) -> Error {
    let message = format!(
        "the parameter is of {driver} {version}, for which there is no feature: take `url: String`, or use {driver} {}",
        known.join(" or ")
    );
    Error::new_spanned(ty, message)
}

/// Declares messages without values, each with a function that returns the error at a place.
macro_rules! messages {
    ($place:ident: $ty:ty => $error:expr; $($name:ident: $message:literal;)*) => {
        $(pub(crate) fn $name($place: $ty) -> Error {
            $error($place, $message)
        })*
    };
}

messages! {
    at: Span => Error::new;
    matrix_of_a_parameter:
        "a list makes several tests, so it applies to the whole test; write it outside the list \
         of a parameter";
    runtime_without_async: "only an `async fn` runs on a runtime; remove this, or write `async fn`";
    workers_of_one_thread:
        "`worker_threads` needs `flavor = \"multi_thread\"`: the other flavor has one thread";
    missing_comma: "expected `,` before this";
    empty_path: "the path is empty";
    empty_list: "the list is empty";
    not_a_duration:
        "expected a duration: a whole number and `ms`, `s`, `m`, `h` or `d`, as in \"500ms\", \
         \"30s\" or \"2m\"";
    zero_duration: "a duration of zero is too short; the shortest is \"1ms\"";
    not_a_setting_name:
        "expected the name of a server setting, as in `max_connections = 50`, \
         `auto_explain.log_min_duration = 0` or `\"my.setting\" = \"x\"`";
    not_a_setting_value:
        "expected the value of a setting: a string, an integer, a float, `true` or `false`";
}

messages! {
    tokens: impl ToTokens => Error::new_spanned;
    engine_of_a_snapshot:
        "the snapshot has an engine already; choose it in the function that returns the snapshot";
    result_of_a_case:
        "the harness judges the result of the function, so `=>` has nothing to compare; pass the \
         expected value as a further argument and compare it in the body";
    case_without_name: "the parameter of a case needs a name; destructure it in the body";
    awaited_without_async: "only an `async fn` awaits a fixture; write `async fn`";
}

messages! {
    tokens: impl ToTokens => signature;
    generic_parameter: "a test cannot be generic: nothing chooses its types";
    lifetime_parameter:
        "a test needs no named lifetime: the database lives as long as the test runs";
    no_parameter:
        "a test with `#[sandboxed_db]` takes a parameter made from its database, and this one \
         takes none; `#[rstest]`, `#[test_case]` and `#[serial]` stand below `#[sandboxed_db]`";
    variadic: "a test cannot be variadic";
    two_owners:
        "another parameter takes the sandbox by value already; take it by reference, as in `db: \
         &Sandbox`";
    receiver: "a test is a free function, it has no `self`";
    mutable_reference:
        "a parameter is taken by value or by `&`; to change it, take it by value, as in `mut db: \
         Sandbox`";
    impl_trait: "a parameter needs a named type, and `impl Trait` names none";
}

fn signature(at: impl ToTokens, mistake: &str) -> Error {
    Error::new_spanned(at, format!("{mistake}\n{ACCEPTED}"))
}

// Wording

fn valid_arguments(names: &[&str]) -> String {
    format!("valid arguments are: `{}`", names.join("`, `"))
}

/// Formats a path as it is written, `tokio::test`, since its tokens print as `tokio :: test`.
fn display(path: &Path) -> String {
    path.to_token_stream().to_string().replace(' ', "")
}

/// Returns the valid name that was probably meant: one that contains the written name or is
/// contained in it (`timeout` for `start_timeout`), else the one with the fewest typing mistakes,
/// up to a third of its letters.
fn closest<'a>(written: &str, valid: &[&'a str]) -> Option<&'a str> {
    let contained = |name: &&&str| written.len() >= 4 && (name.contains(written) || written.contains(**name));
    let distance = |name: &str| edit_distance(written, name);
    let by_distance = || {
        let nearest = valid.iter().min_by_key(|name| distance(name))?;
        (distance(nearest) <= (nearest.len() / 3).max(1)).then_some(nearest)
    };
    valid.iter().find(contained).or_else(by_distance).copied()
}

/// Returns how many letters must be added, removed, replaced or swapped with a neighbour between
/// `a` and `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let added_or_removed = rows[i - 1][j].min(rows[i][j - 1]) + 1;
                let swapped = if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    rows[i - 2][j - 2] + 1
                } else {
                    usize::MAX
                };
                replaced.min(added_or_removed).min(swapped)
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_single_mistakes() {
        assert_eq!(edit_distance("", ""), 0);
        assert_eq!(edit_distance("", "seed"), 4);
        assert_eq!(edit_distance("seed", "seed"), 0);
        assert_eq!(edit_distance("sed", "seed"), 1);
        assert_eq!(edit_distance("seeds", "seed"), 1);
        assert_eq!(edit_distance("seel", "seed"), 1);
        assert_eq!(edit_distance("sede", "seed"), 1);
        assert_eq!(edit_distance("migrations", "settings"), edit_distance("settings", "migrations"));
    }

    #[test]
    fn closest_suggests_only_what_is_near() {
        let valid = ["migrations", "seed", "settings", "start_timeout"];
        assert_eq!(closest("migration", &valid), Some("migrations"));
        assert_eq!(closest("migartions", &valid), Some("migrations"));
        assert_eq!(closest("sede", &valid), Some("seed"));
        assert_eq!(closest("timeout", &valid), Some("start_timeout"));
        assert_eq!(closest("seed_files", &valid), Some("seed"));
        assert_eq!(closest("s", &valid), None);
        assert_eq!(closest("fixtures", &valid), None);
    }

    #[test]
    fn diagnostics_keep_every_mistake_in_order() {
        let mut diagnostics = Diagnostics::default();
        assert_eq!(diagnostics.collect(Ok(1)), Some(1));
        assert_eq!(diagnostics.collect::<()>(Err(empty_path(Span::call_site()))), None);
        diagnostics.push(empty_list(Span::call_site()));
        assert_eq!(diagnostics.messages(), ["the path is empty", "the list is empty"]);
    }
}
