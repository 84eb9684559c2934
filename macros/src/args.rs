//! The arguments of the attribute.
//!
//! A new argument is a variant of [`Name`], a field of [`Arguments`] and an arm in
//! [`Arguments::read`]; a method of [`Argument`] reads its value.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::{Ident, LitInt, LitStr, Path, Token, parenthesized, token};

use crate::diagnostics::{self, Diagnostics};
use crate::matrix::Engine;
use crate::names::Name;
use crate::steps::StepArgument;
use crate::values::{Argument, Setting, comma_separated};

/// The arguments as written. The harness chooses a default for a missing one.
#[derive(Default)]
pub(crate) struct Arguments {
    /// The path of the function that returns the description to extend.
    pub(crate) snapshot: Option<Path>,
    pub(crate) engines: Vec<Engine>,
    pub(crate) versions: Vec<LitStr>,
    pub(crate) packages: Vec<LitStr>,
    /// The reference of an image.
    pub(crate) image: Option<LitStr>,
    /// The place of a list of engines or versions, which makes a test of each.
    pub(crate) matrix: Option<Span>,
    /// The steps, in the order written.
    pub(crate) steps: Vec<StepArgument>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) tls: bool,
    pub(crate) start_timeout: Option<Duration>,
    pub(crate) max_age: Option<Duration>,
    /// The variant of `Keep`.
    pub(crate) keep: Option<Ident>,
    pub(crate) runtime: Runtime,
    /// The arguments of one parameter's own database: a call with an unknown name.
    pub(crate) own: Vec<(Ident, TokenStream)>,
    /// The path of the package `sandboxed-db`, if it cannot be found by its name.
    pub(crate) krate: Option<Path>,
}

/// The requested runtime of an `async fn`.
#[derive(Default)]
pub(crate) struct Runtime {
    pub(crate) multi_thread: bool,
    pub(crate) workers: Option<LitInt>,
    /// The place of the first request.
    pub(crate) asked: Option<Span>,
}

impl Arguments {
    /// Reads all arguments. Skips those with a mistake, which is added to `diagnostics`.
    pub(crate) fn parse(tokens: TokenStream, diagnostics: &mut Diagnostics) -> Self {
        Self::parse_those(tokens, diagnostics, |_| true)
    }

    /// Reads the arguments of a parameter's own database.
    pub(crate) fn parse_own(tokens: TokenStream, diagnostics: &mut Diagnostics) -> Self {
        Self::parse_those(tokens, diagnostics, |name| !name.is_of_the_test())
    }

    /// Returns the names of all arguments, for messages.
    pub(crate) fn names() -> Vec<&'static str> {
        Name::ALL.map(Name::as_str).to_vec()
    }

    /// Returns `true` if an argument describes a database.
    pub(crate) fn describe_a_database(&self) -> bool {
        self.snapshot.is_some()
            || !self.engines.is_empty()
            || !self.versions.is_empty()
            || !self.packages.is_empty()
            || self.image.is_some()
            || !self.steps.is_empty()
            || !self.settings.is_empty()
            || self.tls
    }

    /// Returns `true` if the harness searches migrations: nothing says how the schema is made.
    pub(crate) fn search_migrations(&self) -> bool {
        self.snapshot.is_none()
            && self.engines.is_empty()
            && self
                .steps
                .iter()
                .all(|step| matches!(step, StepArgument::Seed(_) | StepArgument::DependsOn(_)))
    }

    fn parse_those(tokens: TokenStream, diagnostics: &mut Diagnostics, valid: impl Fn(Name) -> bool) -> Self {
        // Only the outer list may name a parameter.
        let whole = valid(Name::Crate);
        let mut arguments = Self::default();
        let mut given = Vec::new();
        let list = |input: ParseStream<'_>| {
            comma_separated(input, diagnostics, |input, diagnostics| {
                let written = input.call(Ident::parse_any).map_err(|error| {
                    diagnostics::not_an_argument(error.span(), &Name::ALL.map(Name::as_str))
                })?;
                let name = match Name::find(&written) {
                    Some(name) if valid(name) => name,
                    Some(_) => return Err(diagnostics::argument_of_the_test(&written)),
                    None if whole && input.peek(token::Paren) => {
                        let list;
                        parenthesized!(list in input);
                        arguments.own.push((written, list.parse()?));
                        return Ok(());
                    }
                    None => {
                        let names = Name::ALL.into_iter().filter(|name| valid(*name)).map(Name::as_str);
                        return Err(diagnostics::unknown_argument(&written, &names.collect::<Vec<_>>()));
                    }
                };
                if given.contains(&name) && !name.may_come_again() {
                    return Err(diagnostics::duplicate_argument(&written, name.instead_of_twice()));
                }
                given.push(name);
                arguments.read(name, &Argument { example: name.example(), written }, input, diagnostics)
            });
            Ok(())
        };
        let read = list.parse2(tokens);
        diagnostics.collect(read);
        if let (Some(_), Some(engine)) = (&arguments.snapshot, arguments.engines.first()) {
            diagnostics.push(diagnostics::engine_of_a_snapshot(&engine.written));
        }
        arguments
    }

    fn read(
        &mut self,
        name: Name,
        argument: &Argument,
        input: ParseStream<'_>,
        diagnostics: &mut Diagnostics,
    ) -> syn::Result<()> {
        match name {
            Name::Snapshot => {
                argument.equals(input)?;
                self.snapshot = Some(argument.rust_path(input, "the path of a function")?);
            }
            Name::Engine => {
                argument.equals(input)?;
                let (engines, list) = argument.several(input, diagnostics, |input| {
                    input.parse().map_err(|_| argument.malformed(input, "an engine"))
                })?;
                self.engines = engines;
                self.matrix = self.matrix.or(list);
            }
            Name::Version => {
                argument.equals(input)?;
                let (versions, list) =
                    argument.several(input, diagnostics, |input| argument.version(input))?;
                self.versions = versions;
                self.matrix = self.matrix.or(list);
            }
            Name::Packages => {
                argument.equals(input)?;
                self.packages = argument
                    .several(input, diagnostics, |input| argument.text(input, "a package as a string"))?
                    .0;
            }
            Name::Image => {
                argument.equals(input)?;
                self.image = Some(argument.text(input, "the reference of an image as a string")?);
            }
            Name::Migrations
            | Name::MigrationsOf
            | Name::Seed
            | Name::DependsOn
            | Name::Run
            | Name::RunTcp
            | Name::Prepare => self.steps.extend(StepArgument::read(name, argument, input, diagnostics)?),
            Name::Settings => self.settings = argument.settings(input, diagnostics)?,
            Name::Tls => {
                if !input.is_empty() && !input.peek(Token![,]) {
                    return Err(argument.malformed(input, "no value"));
                }
                self.tls = true;
            }
            Name::StartTimeout => {
                argument.equals(input)?;
                self.start_timeout = Some(argument.duration(input)?);
            }
            Name::MaxAge => {
                argument.equals(input)?;
                self.max_age = Some(argument.duration(input)?);
            }
            Name::Keep => {
                argument.equals(input)?;
                let expected = "when data is kept, as a string";
                let when = argument.text(input, expected)?;
                let variant = match when.value().as_str() {
                    "never" => "Never",
                    "on_failure" => "OnFailure",
                    "always" => "Always",
                    _ => {
                        return Err(diagnostics::malformed_argument(when.span(), expected, argument.example));
                    }
                };
                self.keep = Some(Ident::new(variant, when.span()));
            }
            Name::Flavor => {
                argument.equals(input)?;
                self.runtime.asked.get_or_insert(argument.written.span());
                let flavor = argument.text(input, "a flavor as a string")?;
                self.runtime.multi_thread = match flavor.value().as_str() {
                    "multi_thread" => true,
                    "current_thread" => false,
                    _ => {
                        let expected = "a flavor of tokio's runtime";
                        return Err(diagnostics::malformed_argument(
                            flavor.span(),
                            expected,
                            argument.example,
                        ));
                    }
                };
            }
            Name::WorkerThreads => {
                argument.equals(input)?;
                self.runtime.asked.get_or_insert(argument.written.span());
                let number = input.parse::<LitInt>().ok();
                let number = number.filter(|number| {
                    number.suffix().is_empty() && number.base10_parse::<u16>().is_ok_and(|number| number > 0)
                });
                self.runtime.workers =
                    Some(number.ok_or_else(|| argument.malformed(input, "how many, at least one"))?);
            }
            Name::Crate => {
                argument.equals(input)?;
                self.krate = Some(argument.module(input)?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use quote::quote;

    use super::*;
    use crate::steps::tests::steps;

    pub(crate) fn read(tokens: TokenStream) -> Arguments {
        let mut diagnostics = Diagnostics::default();
        let arguments = Arguments::parse(tokens, &mut diagnostics);
        assert_eq!(diagnostics.messages(), [""; 0]);
        arguments
    }

    fn mistakes(tokens: TokenStream) -> Vec<String> {
        let mut diagnostics = Diagnostics::default();
        Arguments::parse(tokens, &mut diagnostics);
        diagnostics.messages()
    }

    pub(crate) fn only_mistake(tokens: TokenStream) -> String {
        let mut mistakes = mistakes(tokens);
        assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
        mistakes.remove(0)
    }

    #[test]
    fn arguments_are_optional() {
        let arguments = read(quote!());
        assert!(arguments.steps.is_empty() && arguments.settings.is_empty());
        assert!(arguments.start_timeout.is_none() && arguments.krate.is_none());
    }

    #[test]
    fn migrations_are_searched_where_nothing_makes_the_schema() {
        for tokens in
            [quote!(), quote!(seed = "s"), quote!(version = 17, keep = "never"), quote!(o(run("p")))]
        {
            assert!(read(tokens.clone()).search_migrations(), "{tokens}");
        }
        for tokens in [
            quote!(migrations = none),
            quote!(migrations = "m"),
            quote!(migrations_of(Sqlx, "m")),
            quote!(run("tool")),
            quote!(prepare("k", up)),
            quote!(snapshot = shop),
            quote!(engine = Postgres),
        ] {
            assert!(!read(tokens.clone()).search_migrations(), "{tokens}");
        }
        let mistake = only_mistake(quote!(migrations = false));
        assert_eq!(
            mistake,
            "expected a path as a string, as in `migrations = \"migrations\"` or `migrations = none`"
        );
    }

    #[test]
    fn an_unknown_argument_lists_the_valid_ones() {
        assert_eq!(
            only_mistake(quote!(migration = "m")),
            "unknown argument `migration`, did you mean `migrations`?\n\
             valid arguments are: `snapshot`, `engine`, `version`, `packages`, `image`, `migrations`, `migrations_of`, \
             `seed`, `depends_on`, `run`, `run_tcp`, `prepare`, `settings`, `tls`, `start_timeout`, `max_age`, `keep`, `flavor`, `worker_threads`, \
             `crate`"
        );
        assert!(
            only_mistake(quote!(fixtures = "a")).starts_with("unknown argument `fixtures`; write `seed = [")
        );
        assert!(only_mistake(quote!("migrations")).starts_with("expected the name of an argument\n"));
    }

    #[test]
    fn keep_has_three_values() {
        let kept = |tokens| read(tokens).keep.unwrap().to_string();
        assert_eq!(kept(quote!(keep = "never")), "Never");
        assert_eq!(kept(quote!(keep = "on_failure")), "OnFailure");
        assert_eq!(kept(quote!(keep = "always")), "Always");
        for tokens in [quote!(keep = "sometimes"), quote!(keep = true), quote!(keep = OnFailure)] {
            assert_eq!(
                only_mistake(tokens),
                "expected when data is kept, as a string, as in `keep = \"on_failure\"`, `keep = \"always\"` or \
                 `keep = \"never\"`"
            );
        }
    }

    #[test]
    fn tls_has_no_value() {
        assert!(read(quote!(tls)).tls && read(quote!(tls, keep = "never")).tls && !read(quote!()).tls);
        for tokens in [quote!(tls = true), quote!(tls(true)), quote!(tls "on")] {
            assert_eq!(only_mistake(tokens), "expected no value, as in `#[sandboxed_db(tls)]`");
        }
    }

    #[test]
    fn packages_are_one_name_or_several() {
        let names = |tokens| read(tokens).packages.iter().map(LitStr::value).collect::<Vec<_>>();
        assert_eq!(names(quote!(packages = "a")), ["a"]);
        assert_eq!(names(quote!(packages = ["a", "b",])), ["a", "b"]);
        assert_eq!(names(quote!(package = "a")), ["a"]);
        assert_eq!(
            only_mistake(quote!(packages = [cron])),
            "expected a package as a string, as in `packages = [\"postgresql-15-postgis-3\"]`"
        );
        assert_eq!(only_mistake(quote!(packages = [])), "the list is empty");
    }

    #[test]
    fn a_duplicate_argument_is_refused() {
        assert_eq!(
            only_mistake(quote!(seed = "a", seed = "b")),
            "argument `seed` is given twice; several files are written as `seed = [\"a.sql\", \"b.sql\"]`"
        );
        assert_eq!(
            only_mistake(quote!(start_timeout = 1, start_timeout = 1)),
            "argument `start_timeout` is given twice"
        );
        assert_eq!(only_mistake(quote!(settings(jit = true, "jit" = false))), "setting `jit` is given twice");
    }

    #[test]
    fn a_malformed_value_shows_an_example() {
        let path = "expected a path as a string, as in `migrations = \"migrations\"` or `migrations = none`";
        assert_eq!(only_mistake(quote!(migrations = 5)), path);
        assert_eq!(only_mistake(quote!(migrations =)), path);
        assert_eq!(only_mistake(quote!(migrations = DIRECTORY)), path);
        let value = "expected `=` and a value, as in `migrations = \"migrations\"` or `migrations = none`";
        assert_eq!(only_mistake(quote!(migrations)), value);
        assert_eq!(only_mistake(quote!(migrations("m"))), value);
        assert_eq!(
            only_mistake(quote!(settings = "jit")),
            "expected a list in parentheses, as in `settings(max_connections = 50)`"
        );
        assert_eq!(only_mistake(quote!(migrations = "")), "the path is empty");
        assert_eq!(only_mistake(quote!(seed = [])), "the list is empty");
        assert_eq!(
            only_mistake(quote!(settings(shared_buffers = 64MB))),
            "a number with a unit is written as a string: \"64MB\""
        );
    }

    #[test]
    fn reading_continues_after_a_mistake() {
        let tokens = quote!(
            migration = "m",
            seed = [1, "a", 2],
            settings(a = 'c', b = 1 2, c = 3),
            start_timeout = "2m" "3m",
            crate = "renamed",
        );
        let mut diagnostics = Diagnostics::default();
        let arguments = Arguments::parse(tokens, &mut diagnostics);
        assert_eq!(steps(&arguments), [("seed", "a".into())]);
        assert_eq!(arguments.settings.len(), 2);
        assert!(arguments.start_timeout.is_some() && arguments.krate.is_some());
        let beginnings = [
            "unknown", "expected a path", "expected a path", "expected the value", "expected `,`",
            "expected `,`",
        ];
        let messages = diagnostics.messages();
        assert_eq!(messages.len(), beginnings.len(), "{messages:#?}");
        for (message, beginning) in messages.iter().zip(beginnings) {
            assert!(message.starts_with(beginning), "{message}");
        }
    }
}
