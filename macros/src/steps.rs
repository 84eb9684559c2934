//! The arguments that prepare a database: how each is read, and the method that it calls.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{self, ParseStream};
use syn::{Ident, LitStr, Path, Token};

use crate::diagnostics::Diagnostics;
use crate::names::Name;
use crate::values::Argument;

syn::custom_keyword!(none);

/// A step of the description.
pub(crate) enum StepArgument {
    Migrations(LitStr),
    /// `migrations = none`: no directory is searched.
    NoMigrations,
    /// The variant of `MigrationTool`, and the directory.
    MigrationsOf(Ident, LitStr),
    Seed(LitStr),
    DependsOn(Vec<LitStr>),
    /// The program and its arguments.
    Run(LitStr, Vec<LitStr>),
    RunTcp(LitStr, Vec<LitStr>),
    /// The key, and the path of the function.
    Prepare(LitStr, Path),
}

impl StepArgument {
    /// Reads the value of an argument that is a step, or several.
    pub(crate) fn read(
        name: Name,
        argument: &Argument,
        input: ParseStream<'_>,
        diagnostics: &mut Diagnostics,
    ) -> syn::Result<Vec<Self>> {
        let step = match name {
            Name::Seed => {
                argument.equals(input)?;
                return Ok(argument.paths(input, diagnostics)?.into_iter().map(Self::Seed).collect());
            }
            Name::DependsOn => {
                argument.equals(input)?;
                Self::DependsOn(argument.paths(input, diagnostics)?)
            }
            Name::MigrationsOf => argument.list(input, |list| {
                let expected = "a variant of `MigrationTool`";
                let tool = list.parse().map_err(|_| argument.malformed(list, expected))?;
                argument.comma(list)?;
                Ok(Self::MigrationsOf(tool, argument.path(list)?))
            })?,
            Name::Run | Name::RunTcp => argument.list(input, |list| {
                let program = argument.text(list, "a program as a string")?;
                let mut args = Vec::new();
                while list.peek(Token![,]) && !list.peek2(parse::End) {
                    argument.comma(list)?;
                    args.push(argument.text(list, "an argument of the program as a string")?);
                }
                Ok(if name == Name::Run { Self::Run(program, args) } else { Self::RunTcp(program, args) })
            })?,
            Name::Prepare => argument.list(input, |list| {
                let key = argument.text(list, "a key as a string")?;
                argument.comma(list)?;
                Ok(Self::Prepare(key, argument.rust_path(list, "the path of an `async fn`")?))
            })?,
            _ => {
                argument.equals(input)?;
                match input.parse::<Option<none>>()? {
                    Some(_) => Self::NoMigrations,
                    None => Self::Migrations(argument.path(input)?),
                }
            }
        };
        Ok(vec![step])
    }

    /// Returns the files that must exist, and whether each is a directory.
    pub(crate) fn files(&self) -> (&[LitStr], bool) {
        match self {
            Self::Migrations(path) | Self::MigrationsOf(_, path) => (std::slice::from_ref(path), true),
            Self::Seed(path) => (std::slice::from_ref(path), false),
            Self::DependsOn(paths) => (paths, false),
            Self::NoMigrations | Self::Run(..) | Self::RunTcp(..) | Self::Prepare(..) => (&[], false),
        }
    }

    /// Returns the call of the step's method.
    pub(crate) fn call(&self, krate: &Path) -> TokenStream {
        match self {
            Self::Migrations(path) => quote!(.migrations(#path)),
            Self::NoMigrations => TokenStream::new(),
            Self::MigrationsOf(tool, path) => quote!(.migrations_of(#krate::MigrationTool::#tool, #path)),
            Self::Seed(path) => quote!(.seed(#path)),
            Self::DependsOn(paths) => quote!(.depends_on([#(#paths),*])),
            // An empty list needs the type of its items.
            Self::Run(program, args) => quote!(.run::<&str>(#program, [#(#args),*])),
            Self::RunTcp(program, args) => quote!(.run_tcp::<&str>(#program, [#(#args),*])),
            Self::Prepare(key, function) => quote!(.prepare(#key, #function)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use quote::ToTokens as _;

    use super::*;
    use crate::args::Arguments;
    use crate::args::tests::{only_mistake, read};

    fn words(literals: &[LitStr]) -> String {
        literals.iter().map(LitStr::value).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn steps(arguments: &Arguments) -> Vec<(&str, String)> {
        let text = |step: &StepArgument| match step {
            StepArgument::Migrations(path) => ("migrations", path.value()),
            StepArgument::NoMigrations => ("migrations", "none".to_owned()),
            StepArgument::MigrationsOf(tool, path) => ("migrations_of", format!("{tool} {}", path.value())),
            StepArgument::Seed(path) => ("seed", path.value()),
            StepArgument::DependsOn(paths) => ("depends_on", words(paths)),
            StepArgument::Run(program, args) => ("run", format!("{} {}", program.value(), words(args))),
            StepArgument::RunTcp(program, args) => {
                ("run_tcp", format!("{} {}", program.value(), words(args)))
            }
            StepArgument::Prepare(key, path) => {
                ("prepare", format!("{} {}", key.value(), path.to_token_stream()))
            }
        };
        arguments.steps.iter().map(text).collect()
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
    fn repeatable_steps_repeat() {
        let arguments = read(quote!(
            depends_on = ["a", "b"],
            run("tool", "up"),
            migrations_of(Sqlx, "m"),
            run_tcp("tool"),
            prepare("k", crate::up),
            migrations_of(Plain, "n",),
            prepare("l", up,),
            snapshot = crate::shop,
        ));
        let expected = [
            ("depends_on", "a b"),
            ("run", "tool up"),
            ("migrations_of", "Sqlx m"),
            ("run_tcp", "tool "),
            ("prepare", "k crate :: up"),
            ("migrations_of", "Plain n"),
            ("prepare", "l up"),
        ];
        assert_eq!(steps(&arguments), expected.map(|(name, text)| (name, text.to_owned())));
        assert_eq!(arguments.snapshot.unwrap().to_token_stream().to_string(), "crate :: shop");
    }

    #[test]
    fn lists_may_follow_an_equals_sign() {
        let arguments = read(quote!(migrations_of = (Sqlx, "m"), run = ("tool", "up"), settings = (a = 1)));
        assert_eq!(steps(&arguments), [("migrations_of", "Sqlx m".into()), ("run", "tool up".into())]);
        assert_eq!(arguments.settings.len(), 1);
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
            (quote!(depends_on = []), "the list is empty"),
        ] {
            let mistake = only_mistake(tokens);
            assert!(mistake.contains(expected), "{mistake}");
        }
    }
}
