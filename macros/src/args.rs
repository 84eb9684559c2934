//! What stands in the parentheses of the attribute.
//!
//! An argument added later is a variant of [`Name`], a field of [`Arguments`] and an arm in [`Arguments::read`].

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::{self, ParseStream, Parser as _};
use syn::{Ident, Lit, LitInt, LitStr, Path, Token, bracketed, parenthesized, token};

use crate::diagnostics::{self, Diagnostics};

/// The arguments as they were given; what was left out is for the harness to choose.
#[derive(Default)]
pub(crate) struct Arguments {
    /// The path of the function that returns the description which the other arguments extend.
    pub(crate) snapshot: Option<Path>,
    /// What leads to the database, in the order written.
    pub(crate) steps: Vec<Step>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) start_timeout: Option<Duration>,
    /// The variant of `Keep`.
    pub(crate) keep: Option<Ident>,
    pub(crate) runtime: Runtime,
    /// What is written like a call of no known name: the arguments of one parameter's own database.
    pub(crate) own: Vec<(Ident, TokenStream)>,
    /// The path of the package `sandboxed-db`, where it cannot be found by its name.
    pub(crate) krate: Option<Path>,
}

/// The runtime of an `async fn`, as far as it was asked for.
#[derive(Default)]
pub(crate) struct Runtime {
    pub(crate) multi_thread: bool,
    pub(crate) workers: Option<LitInt>,
    /// Where it was asked for first.
    pub(crate) asked: Option<Span>,
}

pub(crate) enum Step {
    Migrations(LitStr),
    /// The variant of `MigrationTool`, and the directory.
    MigrationsOf(Ident, LitStr),
    Seed(LitStr),
    DependsOn(Vec<LitStr>),
    /// The program and its arguments.
    Run(LitStr, Vec<LitStr>),
    /// The key, and the path of the function.
    Prepare(LitStr, Path),
}

/// A setting of the server, its value as text.
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// The names an argument can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Snapshot,
    Migrations,
    MigrationsOf,
    Seed,
    DependsOn,
    Run,
    Prepare,
    Settings,
    StartTimeout,
    Keep,
    Flavor,
    WorkerThreads,
    Crate,
}

impl Name {
    const ALL: [Self; 13] = [
        Self::Snapshot,
        Self::Migrations,
        Self::MigrationsOf,
        Self::Seed,
        Self::DependsOn,
        Self::Run,
        Self::Prepare,
        Self::Settings,
        Self::StartTimeout,
        Self::Keep,
        Self::Flavor,
        Self::WorkerThreads,
        Self::Crate,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Migrations => "migrations",
            Self::MigrationsOf => "migrations_of",
            Self::Seed => "seed",
            Self::DependsOn => "depends_on",
            Self::Run => "run",
            Self::Prepare => "prepare",
            Self::Settings => "settings",
            Self::StartTimeout => "start_timeout",
            Self::Keep => "keep",
            Self::Flavor => "flavor",
            Self::WorkerThreads => "worker_threads",
            Self::Crate => "crate",
        }
    }

    /// How the argument is written, for messages.
    const fn example(self) -> &'static str {
        match self {
            Self::Snapshot => "`snapshot = crate::testing::shop`",
            Self::Migrations => r#"`migrations = "migrations"`"#,
            Self::MigrationsOf => r#"`migrations_of(Sqlx, "migrations")`"#,
            Self::Seed => r#"`seed = "users.sql"` or `seed = ["a.sql", "b.sql"]`"#,
            Self::DependsOn => {
                r#"`depends_on = "migrations"` or `depends_on = ["migrations", "alembic.ini"]`"#
            }
            Self::Run => r#"`run("alembic", "upgrade", "head")`"#,
            Self::Prepare => r#"`prepare("schema-1", crate::migrate)`"#,
            Self::Settings => "`settings(max_connections = 50)`",
            Self::StartTimeout => r#"`start_timeout = "30s"`"#,
            Self::Keep => r#"`keep = "on_failure"`, `keep = "always"` or `keep = "never"`"#,
            Self::Flavor => r#"`flavor = "multi_thread"` or `flavor = "current_thread"`"#,
            Self::WorkerThreads => r#"`flavor = "multi_thread", worker_threads = 4`"#,
            Self::Crate => r#"`crate = "renamed"`"#,
        }
    }

    /// How to say twice what may be said once, where there is a way.
    const fn instead_of_twice(self) -> Option<&'static str> {
        match self {
            Self::Seed => Some(r#"several files are written as `seed = ["a.sql", "b.sql"]`"#),
            Self::Settings => Some("write all settings in one list"),
            _ => None,
        }
    }

    /// Whether it is a step that several may be of.
    const fn may_come_again(self) -> bool {
        matches!(self, Self::MigrationsOf | Self::DependsOn | Self::Run | Self::Prepare)
    }

    /// Whether it is said of the test, and not of a database.
    const fn is_of_the_test(self) -> bool {
        matches!(self, Self::Flavor | Self::WorkerThreads | Self::Crate)
    }

    fn find(written: &Ident) -> Option<Self> {
        Self::ALL.into_iter().find(|name| written == name.as_str())
    }
}

impl Arguments {
    /// Reads all arguments; those with a mistake are left out and the mistake is added to `diagnostics`.
    pub(crate) fn parse(tokens: TokenStream, diagnostics: &mut Diagnostics) -> Self {
        Self::parse_those(tokens, diagnostics, |_| true)
    }

    /// Reads the arguments of one parameter's own database.
    pub(crate) fn parse_own(tokens: TokenStream, diagnostics: &mut Diagnostics) -> Self {
        Self::parse_those(tokens, diagnostics, |name| !name.is_of_the_test())
    }

    /// The names of all arguments, for messages.
    pub(crate) fn names() -> Vec<&'static str> {
        Name::ALL.map(Name::as_str).to_vec()
    }

    /// Whether something is said of a database.
    pub(crate) fn describe_a_database(&self) -> bool {
        self.snapshot.is_some() || !self.steps.is_empty() || !self.settings.is_empty()
    }

    fn parse_those(tokens: TokenStream, diagnostics: &mut Diagnostics, valid: impl Fn(Name) -> bool) -> Self {
        // Only where all is valid a call of another name may be of a parameter.
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
                arguments.read(&Argument { name, written }, input, diagnostics)
            });
            Ok(())
        };
        let read = list.parse2(tokens);
        diagnostics.collect(read);
        arguments
    }

    fn read(
        &mut self,
        argument: &Argument,
        input: ParseStream<'_>,
        diagnostics: &mut Diagnostics,
    ) -> syn::Result<()> {
        match argument.name {
            Name::Snapshot => {
                argument.equals(input)?;
                self.snapshot = Some(argument.rust_path(input, "the path of a function")?);
            }
            Name::Migrations => {
                argument.equals(input)?;
                self.steps.push(Step::Migrations(argument.path(input)?));
            }
            Name::MigrationsOf => {
                let read = |list: ParseStream<'_>| {
                    let tool =
                        list.parse().map_err(|_| argument.malformed(list, "a variant of `MigrationTool`"))?;
                    argument.comma(list)?;
                    Ok(Step::MigrationsOf(tool, argument.path(list)?))
                };
                self.steps.push(argument.list(input, read)?);
            }
            Name::Seed => {
                argument.equals(input)?;
                self.steps.extend(argument.paths(input, diagnostics)?.into_iter().map(Step::Seed));
            }
            Name::DependsOn => {
                argument.equals(input)?;
                self.steps.push(Step::DependsOn(argument.paths(input, diagnostics)?));
            }
            Name::Run => {
                let read = |list: ParseStream<'_>| {
                    let program = argument.text(list, "a program as a string")?;
                    let mut args = Vec::new();
                    while list.peek(Token![,]) && !list.peek2(parse::End) {
                        argument.comma(list)?;
                        args.push(argument.text(list, "an argument of the program as a string")?);
                    }
                    Ok(Step::Run(program, args))
                };
                self.steps.push(argument.list(input, read)?);
            }
            Name::Prepare => {
                let read = |list: ParseStream<'_>| {
                    let key = argument.text(list, "a key as a string")?;
                    argument.comma(list)?;
                    Ok(Step::Prepare(key, argument.rust_path(list, "the path of an `async fn`")?))
                };
                self.steps.push(argument.list(input, read)?);
            }
            Name::Settings => self.settings = argument.settings(input, diagnostics)?,
            Name::StartTimeout => {
                argument.equals(input)?;
                self.start_timeout = Some(argument.duration(input)?);
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
                        let example = argument.name.example();
                        return Err(diagnostics::malformed_argument(when.span(), expected, example));
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
                            argument.name.example(),
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

/// An argument whose name is read and whose value comes next.
struct Argument {
    name: Name,
    written: Ident,
}

impl Argument {
    fn malformed(&self, input: ParseStream<'_>, expected: &str) -> syn::Error {
        // Where something is missing there is no token to point at but the name.
        let missing = input.is_empty() || input.peek(Token![,]);
        let at = if missing { self.written.span() } else { input.span() };
        diagnostics::malformed_argument(at, expected, self.name.example())
    }

    fn equals(&self, input: ParseStream<'_>) -> syn::Result<()> {
        match input.parse::<Option<Token![=]>>()? {
            Some(_) => Ok(()),
            None => Err(self.malformed(input, "`=` and a value")),
        }
    }

    /// A path in the file system; whether it exists is asked when the test runs.
    fn path(&self, input: ParseStream<'_>) -> syn::Result<LitStr> {
        if !input.peek(LitStr) {
            return Err(self.malformed(input, "a path as a string"));
        }
        let path: LitStr = input.parse()?;
        if path.value().is_empty() { Err(diagnostics::empty_path(path.span())) } else { Ok(path) }
    }

    /// A path, or several in brackets.
    fn paths(&self, input: ParseStream<'_>, diagnostics: &mut Diagnostics) -> syn::Result<Vec<LitStr>> {
        if !input.peek(token::Bracket) {
            return Ok(vec![self.path(input)?]);
        }
        let list;
        let brackets = bracketed!(list in input);
        if list.is_empty() {
            return Err(diagnostics::no_files(brackets.span.join()));
        }
        let mut paths = Vec::new();
        comma_separated(&list, diagnostics, |input, _| {
            paths.push(self.path(input)?);
            Ok(())
        });
        Ok(paths)
    }

    fn settings(&self, input: ParseStream<'_>, diagnostics: &mut Diagnostics) -> syn::Result<Vec<Setting>> {
        if !input.peek(token::Paren) {
            return Err(self.malformed(input, "a list in parentheses"));
        }
        let list;
        parenthesized!(list in input);
        let mut settings: Vec<Setting> = Vec::new();
        comma_separated(&list, diagnostics, |input, _| {
            let at = input.span();
            let setting = Setting::parse(input)?;
            if settings.iter().any(|earlier| earlier.name == setting.name) {
                return Err(diagnostics::duplicate_setting(at, &setting.name));
            }
            settings.push(setting);
            Ok(())
        });
        Ok(settings)
    }

    /// A time with its unit, or whole seconds.
    fn duration(&self, input: ParseStream<'_>) -> syn::Result<Duration> {
        if !input.peek(Lit) {
            return Err(self.malformed(input, "a duration as a string"));
        }
        let literal: Lit = input.parse()?;
        let at = literal.span();
        let duration = match &literal {
            Lit::Str(text) => duration(&text.value()).ok_or_else(|| diagnostics::not_a_duration(at))?,
            Lit::Int(seconds) if seconds.suffix().is_empty() => {
                Duration::from_secs(seconds.base10_parse().map_err(|_| diagnostics::not_a_duration(at))?)
            }
            Lit::Int(with_unit) => return Err(diagnostics::unquoted_unit(at, with_unit)),
            _ => return Err(diagnostics::not_a_duration(at)),
        };
        if duration.is_zero() { Err(diagnostics::zero_timeout(at)) } else { Ok(duration) }
    }

    /// What is in the parentheses that come next, with or without a comma at its end.
    fn list<T>(
        &self,
        input: ParseStream<'_>,
        read: impl FnOnce(ParseStream<'_>) -> syn::Result<T>,
    ) -> syn::Result<T> {
        if !input.peek(token::Paren) {
            return Err(self.malformed(input, "a list in parentheses"));
        }
        let list;
        parenthesized!(list in input);
        let read = read(&list).and_then(|read| {
            list.parse::<Option<Token![,]>>()?;
            if list.is_empty() { Ok(read) } else { Err(self.malformed(&list, "no further value")) }
        });
        // What is left would be reported as a further mistake.
        list.parse::<TokenStream>()?;
        read
    }

    fn comma(&self, list: ParseStream<'_>) -> syn::Result<()> {
        list.parse::<Token![,]>().map(drop).map_err(|_| self.malformed(list, "a comma and a further value"))
    }

    fn text(&self, input: ParseStream<'_>, expected: &str) -> syn::Result<LitStr> {
        input.parse().map_err(|_| self.malformed(input, expected))
    }

    /// The path of something in Rust.
    fn rust_path(&self, input: ParseStream<'_>, expected: &str) -> syn::Result<Path> {
        if !input.peek(Ident::peek_any) && !input.peek(Token![::]) {
            return Err(self.malformed(input, expected));
        }
        input.parse()
    }

    /// A path in Rust, bare or in a string.
    fn module(&self, input: ParseStream<'_>) -> syn::Result<Path> {
        if input.peek(LitStr) {
            let quoted: LitStr = input.parse()?;
            return quoted.parse_with(Path::parse_mod_style).map_err(|_| {
                diagnostics::malformed_argument(quoted.span(), "the path of a crate", self.name.example())
            });
        }
        input.call(Path::parse_mod_style).map_err(|_| self.malformed(input, "the path of a crate"))
    }
}

impl Setting {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let at = input.span();
        let name = Self::parse_name(input)?;
        if input.parse::<Option<Token![=]>>()?.is_none() {
            return Err(diagnostics::setting_without_value(at, &name));
        }
        let value = Self::parse_value(input)?;
        Ok(Self { name, value })
    }

    /// `max_connections`, `auto_explain.log_min_duration` or either in quotes.
    fn parse_name(input: ParseStream<'_>) -> syn::Result<String> {
        if input.peek(LitStr) {
            let quoted: LitStr = input.parse()?;
            let name = quoted.value();
            return if name.is_empty() {
                Err(diagnostics::not_a_setting_name(quoted.span()))
            } else {
                Ok(name)
            };
        }
        let word = || match input.call(Ident::parse_any) {
            Ok(word) => Ok(word.unraw().to_string()),
            Err(error) => Err(diagnostics::not_a_setting_name(error.span())),
        };
        let mut name = word()?;
        while input.peek(Token![.]) {
            input.parse::<Token![.]>()?;
            name.push('.');
            name.push_str(&word()?);
        }
        Ok(name)
    }

    fn parse_value(input: ParseStream<'_>) -> syn::Result<String> {
        let literal: Lit = input.parse().map_err(|_| diagnostics::not_a_setting_value(input.span()))?;
        match &literal {
            Lit::Str(text) => Ok(text.value()),
            Lit::Int(number) if number.suffix().is_empty() => Ok(number.base10_digits().to_owned()),
            Lit::Float(number) if number.suffix().is_empty() => Ok(number.base10_digits().to_owned()),
            Lit::Bool(switch) => Ok(if switch.value { "on" } else { "off" }.to_owned()),
            Lit::Int(_) | Lit::Float(_) => Err(diagnostics::unquoted_unit(literal.span(), &literal)),
            _ => Err(diagnostics::not_a_setting_value(literal.span())),
        }
    }
}

/// A whole number followed by `ms`, `s` or `m`.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => number,
        "s" => number.checked_mul(1_000)?,
        "m" => number.checked_mul(60_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(milliseconds))
}

/// Reads `item, item, …`. After a mistake it goes on behind the next comma, so it always reads to the end.
fn comma_separated(
    input: ParseStream<'_>,
    diagnostics: &mut Diagnostics,
    mut item: impl FnMut(ParseStream<'_>, &mut Diagnostics) -> syn::Result<()>,
) {
    while !input.is_empty() {
        let mut result = item(input, diagnostics);
        if result.is_ok() && !input.is_empty() && !input.peek(Token![,]) {
            result = Err(diagnostics::missing_comma(input.span()));
        }
        diagnostics.collect(result);
        // A token that cannot be read does not exist: a tree is a group or a single token.
        while !input.is_empty() && !input.peek(Token![,]) && input.parse::<TokenTree>().is_ok() {}
        let _ = input.parse::<Option<Token![,]>>();
    }
}

#[cfg(test)]
mod tests {
    use quote::{ToTokens as _, quote};

    use super::*;

    fn read(tokens: TokenStream) -> Arguments {
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

    fn only_mistake(tokens: TokenStream) -> String {
        let mut mistakes = mistakes(tokens);
        assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
        mistakes.remove(0)
    }

    fn words(literals: &[LitStr]) -> String {
        literals.iter().map(LitStr::value).collect::<Vec<_>>().join(" ")
    }

    fn steps(arguments: &Arguments) -> Vec<(&str, String)> {
        let text = |step: &Step| match step {
            Step::Migrations(path) => ("migrations", path.value()),
            Step::MigrationsOf(tool, path) => ("migrations_of", format!("{tool} {}", path.value())),
            Step::Seed(path) => ("seed", path.value()),
            Step::DependsOn(paths) => ("depends_on", words(paths)),
            Step::Run(program, args) => ("run", format!("{} {}", program.value(), words(args))),
            Step::Prepare(key, path) => ("prepare", format!("{} {}", key.value(), path.to_token_stream())),
        };
        arguments.steps.iter().map(text).collect()
    }

    fn settings(tokens: TokenStream) -> Vec<(String, String)> {
        read(tokens).settings.into_iter().map(|setting| (setting.name, setting.value)).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn no_arguments_are_fine() {
        let arguments = read(quote!());
        assert!(arguments.steps.is_empty() && arguments.settings.is_empty());
        assert!(arguments.start_timeout.is_none() && arguments.krate.is_none());
    }

    #[test]
    fn steps_keep_the_order_written() {
        let arguments = read(quote!(migrations = "m", seed = "s"));
        assert_eq!(steps(&arguments), [("migrations", "m".into()), ("seed", "s".into())]);
        let arguments = read(quote!(seed = ["a", "b",], migrations = "m",));
        assert_eq!(
            steps(&arguments),
            [("seed", "a".into()), ("seed", "b".into()), ("migrations", "m".into())]
        );
    }

    #[test]
    fn steps_that_may_come_again_do() {
        let arguments = read(quote!(
            depends_on = ["a", "b"],
            run("tool", "up"),
            migrations_of(Sqlx, "m"),
            run("tool"),
            prepare("k", crate::up),
            migrations_of(Plain, "n",),
            prepare("l", up,),
            snapshot = crate::shop,
        ));
        let expected = [
            ("depends_on", "a b"),
            ("run", "tool up"),
            ("migrations_of", "Sqlx m"),
            ("run", "tool "),
            ("prepare", "k crate :: up"),
            ("migrations_of", "Plain n"),
            ("prepare", "l up"),
        ];
        assert_eq!(steps(&arguments), expected.map(|(name, text)| (name, text.to_owned())));
        assert_eq!(arguments.snapshot.unwrap().to_token_stream().to_string(), "crate :: shop");
    }

    #[test]
    fn lists_that_are_incomplete_are_refused() {
        for (tokens, expected) in [
            (quote!(run = "tool"), "a list in parentheses"),
            (quote!(run()), "a program as a string"),
            (quote!(run("tool", up)), "an argument of the program as a string"),
            (quote!(migrations_of("m")), "a variant of `MigrationTool`"),
            (quote!(migrations_of(Sqlx)), "a comma and a further value"),
            (quote!(migrations_of(Sqlx, "m", "n")), "no further value"),
            (quote!(prepare("k", "up")), "the path of an `async fn`"),
            (quote!(snapshot = "shop"), "the path of a function"),
            (quote!(depends_on = []), "file"),
        ] {
            let mistake = only_mistake(tokens);
            assert!(mistake.contains(expected), "{mistake}");
        }
    }

    #[test]
    fn settings_become_text() {
        let read = settings(quote!(settings(
            max_connections = 50,
            big = 1_000,
            hex = 0x10,
            negative = -1,
            random_page_cost = 1.5,
            fsync = true,
            jit = false,
            log_statement = "all",
            auto_explain.log_min_duration = 0,
            "my.ext_setting" = "x",
            r#type = "raw",
        )));
        let expected = [
            pair("max_connections", "50"),
            pair("big", "1000"),
            pair("hex", "16"),
            pair("negative", "-1"),
            pair("random_page_cost", "1.5"),
            pair("fsync", "on"),
            pair("jit", "off"),
            pair("log_statement", "all"),
            pair("auto_explain.log_min_duration", "0"),
            pair("my.ext_setting", "x"),
            pair("type", "raw"),
        ];
        assert_eq!(read, expected);
        assert_eq!(settings(quote!(settings())), []);
    }

    #[test]
    fn start_timeout_has_a_unit_or_is_in_seconds() {
        let limit = |tokens| read(tokens).start_timeout.unwrap();
        assert_eq!(limit(quote!(start_timeout = "30s")), Duration::from_secs(30));
        assert_eq!(limit(quote!(start_timeout = "500ms")), Duration::from_millis(500));
        assert_eq!(limit(quote!(start_timeout = "2m")), Duration::from_secs(120));
        assert_eq!(limit(quote!(start_timeout = 30)), Duration::from_secs(30));
    }

    #[test]
    fn durations_that_cannot_be_read_are_refused() {
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "30 s",
            "30S",
            "1h",
            "99999999999999999999s",
            "18446744073709551615m",
        ] {
            assert_eq!(duration(text), None, "{text:?}");
            let mistake = only_mistake(quote!(start_timeout = #text));
            assert!(mistake.starts_with("expected a duration"), "{mistake}");
        }
        assert!(only_mistake(quote!(start_timeout = -1)).starts_with("expected a duration"));
        assert!(only_mistake(quote!(start_timeout = 1.5)).starts_with("expected a duration"));
        assert!(only_mistake(quote!(start_timeout = 0)).contains("timeout of zero"));
        assert!(only_mistake(quote!(start_timeout = "0ms")).contains("timeout of zero"));
        assert_eq!(
            only_mistake(quote!(start_timeout = 30s)),
            "a number with a unit is written as a string: \"30s\""
        );
    }

    #[test]
    fn crate_is_a_path_with_or_without_quotes() {
        let path = |tokens| read(tokens).krate.unwrap().to_token_stream().to_string().replace(' ', "");
        assert_eq!(path(quote!(crate = "renamed")), "renamed");
        assert_eq!(path(quote!(crate = "::outer::inner")), "::outer::inner");
        assert_eq!(path(quote!(crate = crate::reexport)), "crate::reexport");
        for tokens in
            [quote!(crate = "no path"), quote!(crate = ""), quote!(crate = 5), quote!(crate = "a<b>")]
        {
            let mistake = only_mistake(tokens);
            assert_eq!(mistake, "expected the path of a crate, as in `crate = \"renamed\"`");
        }
    }

    #[test]
    fn an_unknown_argument_is_answered_with_the_valid_ones() {
        assert_eq!(
            only_mistake(quote!(migration = "m")),
            "unknown argument `migration`, did you mean `migrations`?\n\
             valid arguments are: `snapshot`, `migrations`, `migrations_of`, `seed`, `depends_on`, `run`, `prepare`, \
             `settings`, `start_timeout`, `keep`, `flavor`, `worker_threads`, `crate`"
        );
        assert!(
            only_mistake(quote!(fixtures = "a"))
                .starts_with("unknown argument `fixtures`\nvalid arguments are: ")
        );
        assert!(only_mistake(quote!("migrations")).starts_with("expected the name of an argument\n"));
    }

    #[test]
    fn data_is_kept_in_one_of_three_cases() {
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
    fn an_argument_is_given_once() {
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
    fn a_malformed_value_is_answered_with_an_example() {
        let path = "expected a path as a string, as in `migrations = \"migrations\"`";
        assert_eq!(only_mistake(quote!(migrations = 5)), path);
        assert_eq!(only_mistake(quote!(migrations =)), path);
        assert_eq!(only_mistake(quote!(migrations = DIRECTORY)), path);
        let value = "expected `=` and a value, as in `migrations = \"migrations\"`";
        assert_eq!(only_mistake(quote!(migrations)), value);
        assert_eq!(only_mistake(quote!(migrations("m"))), value);
        assert_eq!(
            only_mistake(quote!(settings = "jit")),
            "expected a list in parentheses, as in `settings(max_connections = 50)`"
        );
        assert_eq!(only_mistake(quote!(migrations = "")), "the path is empty");
        assert_eq!(only_mistake(quote!(seed = [])), "the list names no file");
        assert_eq!(
            only_mistake(quote!(settings(shared_buffers = 64MB))),
            "a number with a unit is written as a string: \"64MB\""
        );
    }

    #[test]
    fn malformed_settings_are_refused() {
        assert_eq!(
            only_mistake(quote!(settings(a.b, c = 1))),
            "expected `=` and a value after `a.b`, as in `max_connections = 50`"
        );
        for tokens in [
            quote!(settings("" = 1)),
            quote!(settings(5 = 1)),
            quote!(settings(a. = 1)),
            quote!(settings(= 1)),
        ] {
            assert!(only_mistake(tokens).starts_with("expected the name of a server setting"));
        }
        for tokens in [
            quote!(settings(a = 'c')),
            quote!(settings(a = b"x")),
            quote!(settings(a = b)),
            quote!(settings(a =)),
        ] {
            assert!(only_mistake(tokens).starts_with("expected the value of a setting"));
        }
    }

    #[test]
    fn reading_goes_on_after_a_mistake() {
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
            "unknown",
            "expected a path",
            "expected a path",
            "expected the value",
            "expected `,`",
            "expected `,`",
        ];
        let messages = diagnostics.messages();
        assert_eq!(messages.len(), beginnings.len(), "{messages:#?}");
        for (message, beginning) in messages.iter().zip(beginnings) {
            assert!(message.starts_with(beginning), "{message}");
        }
    }
}
