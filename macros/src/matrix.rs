//! The tests that a list of engines or versions makes.

use std::collections::HashSet;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Expr, ExprLit, Ident, Lit, LitStr, Path};

use crate::args::Arguments;
use crate::diagnostics::{self, Diagnostics};

/// An engine as written: a type with a default, an expression, or the path of a file of TOML.
pub(crate) struct Engine {
    pub(crate) written: Expr,
}

/// One test of the matrix.
pub(crate) struct Case<'a> {
    pub(crate) name: Ident,
    /// Index of the engine.
    pub(crate) engine: usize,
    pub(crate) version: Option<&'a LitStr>,
}

/// Returns all tests of the matrix, engine by engine.
pub(crate) fn cases<'a>(arguments: &'a Arguments, diagnostics: &mut Diagnostics) -> Vec<Case<'a>> {
    let Arguments { snapshot, engines, versions, .. } = arguments;
    let mut names: Vec<_> = engines.iter().map(Engine::name).collect();
    if names.is_empty() {
        // Only the compiler knows the engine of a returned description.
        names.push(if snapshot.is_some() { "version" } else { "postgres" }.to_owned());
    }
    let mut numbers = HashSet::new();
    for twice in versions.iter().filter(|version| !numbers.insert(version.value())) {
        diagnostics.push(diagnostics::duplicate_version(twice));
    }
    let mut seen = HashSet::new();
    let mut cases = Vec::new();
    for (engine, name) in names.iter().enumerate() {
        if !seen.insert(name.as_str()) {
            diagnostics.push(diagnostics::engines_of_one_name(&engines[engine].written, name));
        }
        if versions.is_empty() {
            cases.push(Case { name: ident(name), engine, version: None });
        }
        cases.extend(versions.iter().map(|version| {
            let number = version.value().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            Case { name: ident(&format!("{name}_{number}")), engine, version: Some(version) }
        }));
    }
    cases
}

fn ident(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

impl Engine {
    /// Returns the name of the type, or of the function that returns it.
    pub(crate) fn ident(&self) -> Option<&Ident> {
        named(&self.written)
    }

    /// Returns the path of the file that describes it.
    pub(crate) fn file(&self) -> Option<&LitStr> {
        match &self.written {
            Expr::Lit(ExprLit { lit: Lit::Str(file), .. }) => Some(file),
            _ => None,
        }
    }

    /// Returns the name of its tests: that of the type, or of the function that returns it, as in
    /// `maria_db`.
    fn name(&self) -> String {
        if let Some(file) = self.file() {
            let file = file.value();
            let stem = file.rsplit('/').next().unwrap_or_default().trim_end_matches(".toml");
            let plain = stem.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            return if plain.starts_with(|c: char| c.is_ascii_alphabetic()) {
                plain
            } else {
                "engine".to_owned()
            };
        }
        self.ident().map(|ident| snake_case(&ident.to_string())).unwrap_or_else(|| "engine".to_owned())
    }
}

impl Parse for Engine {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        input.parse().map(|written| Self { written })
    }
}

impl ToTokens for Engine {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match &self.written {
            Expr::Path(ty) => tokens.extend(quote!(<#ty as ::core::default::Default>::default())),
            value => value.to_tokens(tokens),
        }
    }
}

/// Returns `Postgres` for `Postgres`, for `engines::Postgres::new().database("shop")` and for
/// `Postgres { .. }`; `shop` for `shop()`.
fn named(expression: &Expr) -> Option<&Ident> {
    match expression {
        Expr::Path(path) => last_name(&path.path),
        Expr::Struct(value) => last_name(&value.path),
        Expr::Call(call) => named(&call.func),
        Expr::MethodCall(call) => named(&call.receiver),
        Expr::Paren(inner) => named(&inner.expr),
        Expr::Group(inner) => named(&inner.expr),
        Expr::Reference(inner) => named(&inner.expr),
        _ => None,
    }
}

/// Returns the type of an associated function, else the last name.
fn last_name(path: &Path) -> Option<&Ident> {
    let mut names = path.segments.iter().rev().map(|segment| &segment.ident);
    let last = names.next()?;
    let is_type = |ident: &&Ident| ident.to_string().starts_with(char::is_uppercase);
    Some(if is_type(&last) { last } else { names.next().filter(is_type).unwrap_or(last) })
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.trim_start_matches("r#").chars() {
        if letter.is_uppercase() && !snake.is_empty() && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(arguments: TokenStream) -> Vec<String> {
        let mut diagnostics = Diagnostics::default();
        let arguments = Arguments::parse(arguments, &mut diagnostics);
        let cases = cases(&arguments, &mut diagnostics);
        assert_eq!(diagnostics.messages(), [""; 0]);
        cases.into_iter().map(|case| case.name.to_string()).collect()
    }

    #[test]
    fn tests_are_named_for_engine_and_version() {
        assert_eq!(names(quote!(version = ["15", 17])), ["postgres_15", "postgres_17"]);
        assert_eq!(names(quote!(version = ["16.4", "18beta1"])), ["postgres_16_4", "postgres_18beta1"]);
        assert_eq!(names(quote!(snapshot = shop, version = ["15"])), ["version_15"]);
        assert_eq!(names(quote!(engine = [Postgres, db::MariaDb])), ["postgres", "maria_db"]);
        assert_eq!(
            names(quote!(engine = [Postgres::new().database("shop"), checksums()], version = ["15", "16"])),
            ["postgres_15", "postgres_16", "checksums_15", "checksums_16"]
        );
        assert_eq!(names(quote!(engine = [(Echo {}), &*ENGINE])), ["echo", "engine"]);
        assert_eq!(names(quote!(engine = ["a/my-cache.toml", "7.toml"])), ["my_cache", "engine"]);
    }

    #[test]
    fn an_engine_is_a_type_or_an_expression() {
        let tokens = |text: &str| syn::parse_str::<Engine>(text).unwrap().to_token_stream().to_string();
        assert_eq!(tokens("db::MariaDb"), "< db :: MariaDb as :: core :: default :: Default > :: default ()");
        assert_eq!(tokens("Postgres::new()"), "Postgres :: new ()");
    }
}
