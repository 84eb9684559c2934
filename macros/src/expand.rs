//! From the attribute and the function to a plain test.
//!
//! The test only says what it wants and hands it to the harness; what a sandbox is, how long to wait for it and what
//! counts as a failure is decided there. All paths are absolute, and local names are hygienic, so that nothing the user
//! has named can come in between.

use std::iter;

use proc_macro_crate::FoundCrate;
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::{Ident, Path, ReturnType, parse_quote};

use crate::args::{Arguments, Setting, Step};
use crate::diagnostics::Diagnostics;
use crate::signature::{Function, Parameter};

/// The expansion of `#[sandboxed_db(arguments)] item`.
///
/// With a mistake in either, it is the function as it was written, and the mistakes.
pub(crate) fn sandboxed_db(arguments: TokenStream, item: &TokenStream) -> TokenStream {
    let mut diagnostics = Diagnostics::default();
    let arguments = Arguments::parse(arguments, &mut diagnostics);
    let function = match Function::parse(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            diagnostics.push(error);
            let errors = diagnostics.into_compile_errors();
            return quote!(#item #errors);
        }
    };
    let parameter = function.check(&mut diagnostics);
    match (parameter, diagnostics.into_compile_errors()) {
        (Some(parameter), None) => test(&function, &parameter, &arguments),
        (_, errors) => {
            let function = function.without_test();
            quote!(#function #errors)
        }
    }
}

/// The test, with the user's function inside.
fn test(function: &Function, parameter: &Parameter<'_>, arguments: &Arguments) -> TokenStream {
    let Function { attributes, visibility, signature, body } = function;
    let krate = arguments.krate.clone().unwrap_or_else(find_crate);
    let function_name = &signature.ident;
    let name = function_name.to_string();
    let output = &signature.output;
    let calls = builder_calls(arguments, &krate);
    let snapshot = match &arguments.snapshot {
        Some(function) => quote_spanned!(Span::mixed_site()=> test.extend(#function())),
        None => quote_spanned!(Span::mixed_site()=> test.snapshot()),
    };
    // A test that must panic would pass for one that could not be run, so the harness has to know.
    let should_panic = function.should_panic().then(|| quote!(.should_panic()));
    let run = run(function, parameter, &krate);
    // Would complain of what the attribute asks for: a `&String`, a `Sandbox` that is only read.
    let lint = if parameter.by_reference { quote!(ptr_arg) } else { quote!(needless_pass_by_value) };

    // The function keeps its name, for backtraces and so that it can call itself. Its attributes stay outside: lint
    // levels reach inwards, and an `#[expect]` is to be met once.
    quote_spanned! {Span::mixed_site()=>
        #(#attributes)*
        #[::core::prelude::v1::test]
        #visibility fn #function_name() #output {
            #[allow(clippy::#lint)]
            #signature #body

            let test = #krate::harness::Test::new(
                ::core::env!("CARGO_MANIFEST_DIR"),
                ::core::module_path!(),
                #name,
            ) #should_panic;
            let snapshot = #snapshot #calls;
            #run
        }
    }
}

/// `.migrations("…").seed("…")…`
fn builder_calls(arguments: &Arguments, krate: &Path) -> TokenStream {
    let Arguments { snapshot: _, steps, settings, start_timeout, krate: _ } = arguments;
    let steps = steps.iter().map(|step| match step {
        Step::Migrations(path) => quote!(.migrations(#path)),
        Step::MigrationsOf(tool, path) => {
            quote!(.migrations_of(#krate::MigrationTool::#tool, #path))
        }
        Step::Seed(path) => quote!(.seed(#path)),
        Step::DependsOn(paths) => quote!(.depends_on([#(#paths),*])),
        // Not every list of arguments says by itself what it is of.
        Step::Run(program, args) => quote!(.run::<&str>(#program, [#(#args),*])),
        Step::Prepare(key, function) => quote!(.prepare(#key, #function)),
    });
    let settings = settings.iter().map(|Setting { name, value }| quote!(.setting(#name, #value)));
    let start_timeout = start_timeout.map(|limit| {
        let (seconds, nanoseconds) = (limit.as_secs(), limit.subsec_nanos());
        quote!(.start_timeout(::core::time::Duration::new(#seconds, #nanoseconds)))
    });
    quote_spanned!(Span::mixed_site()=> #(#steps)* #(#settings)* #start_timeout)
}

/// The call of the harness, which makes the parameter, runs the function and returns what it returns.
///
/// Two mistakes are left to the compiler, which knows types: a parameter that cannot be made from a database, and a
/// result that is no outcome of a test. So that it reports them where they are written, the user's own tokens name the
/// parameter's type, and the path of `run` pretends to stand at the return type.
fn run(function: &Function, parameter: &Parameter<'_>, krate: &Path) -> TokenStream {
    let here = Span::mixed_site();
    let signature = &function.signature;
    let (name, ty) = (&signature.ident, parameter.ty);
    let reference = parameter.by_reference.then(|| quote_spanned!(here=> &));
    let argument = quote_spanned!(here=> #reference <#ty as #krate::harness::Parameter>::from_lease(lease));
    let (mut run, body);
    if signature.asyncness.is_some() {
        run = quote_spanned!(here=> #krate::harness::run_async);
        body = quote_spanned!(here=> async |lease| #name(#argument).await);
    } else {
        run = quote_spanned!(here=> #krate::harness::run);
        body = quote_spanned!(here=> |lease| #name(#argument));
    }
    if let ReturnType::Type(_, ty) = &signature.output {
        run = located_at(run, &ty.to_token_stream());
    }
    quote_spanned!(here=> #run(test, snapshot, #body))
}

/// The same tokens, still resolved as before, that seem to reach from the first of `place` to its last.
fn located_at(tokens: TokenStream, place: &TokenStream) -> TokenStream {
    let spans = || place.clone().into_iter().map(|token| token.span());
    let (Some(first), Some(last)) = (spans().next(), spans().last()) else {
        return tokens;
    };
    let places = iter::once(first).chain(iter::repeat(last));
    let relocated = tokens.into_iter().zip(places).map(|(mut token, place)| {
        token.set_span(token.span().located_at(place));
        token
    });
    relocated.collect()
}

/// The path of the package `sandboxed-db` in the user's crate, by the name it has in its manifest.
fn find_crate() -> Path {
    let name = match proc_macro_crate::crate_name("sandboxed-db") {
        Ok(FoundCrate::Name(name)) => name,
        // Its own integration tests and doctests know it by its name like everyone else. Without any manifest, or
        // without the package in it, that name is the best guess, and the compiler says that it is missing.
        Ok(FoundCrate::Itself) | Err(_) => "sandboxed_db".to_owned(),
    };
    let name = Ident::new(&name, Span::mixed_site());
    parse_quote!(::#name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(arguments: &TokenStream, item: &TokenStream) -> String {
        // The path is given, so that the tests do not depend on the manifest they are built with.
        sandboxed_db(quote!(crate = ::db, #arguments), item).to_string()
    }

    #[test]
    fn a_plain_function_becomes_a_plain_test() {
        let expected = quote! {
            #[::core::prelude::v1::test]
            fn adds() {
                #[allow(clippy::needless_pass_by_value)]
                fn adds(db: Sandbox) { assert!(db.works()); }

                let test = ::db::harness::Test::new(
                    ::core::env!("CARGO_MANIFEST_DIR"),
                    ::core::module_path!(),
                    "adds",
                );
                let snapshot = test.snapshot();
                ::db::harness::run(
                    test,
                    snapshot,
                    |lease| adds(<Sandbox as ::db::harness::Parameter>::from_lease(lease))
                )
            }
        };
        let expansion = expand(
            &quote!(),
            &quote!(
                fn adds(db: Sandbox) {
                    assert!(db.works());
                }
            ),
        );
        assert_eq!(expansion, expected.to_string());
    }

    #[test]
    fn everything_at_once() {
        let arguments = quote! {
            migrations = "migrations",
            seed = ["a.sql", "b.sql"],
            settings(max_connections = 50, jit = false),
            start_timeout = "1500ms",
        };
        let item = quote! {
            /// Documented.
            #[ignore]
            pub(crate) async fn adds(mut db: &Sandbox) -> Result<(), Error> { db.add().await }
        };
        let expected = quote! {
            /// Documented.
            #[ignore]
            #[::core::prelude::v1::test]
            pub(crate) fn adds() -> Result<(), Error> {
                #[allow(clippy::ptr_arg)]
                async fn adds(mut db: &Sandbox) -> Result<(), Error> { db.add().await }

                let test = ::db::harness::Test::new(
                    ::core::env!("CARGO_MANIFEST_DIR"),
                    ::core::module_path!(),
                    "adds",
                );
                let snapshot = test
                    .snapshot()
                    .migrations("migrations")
                    .seed("a.sql")
                    .seed("b.sql")
                    .setting("max_connections", "50")
                    .setting("jit", "off")
                    .start_timeout(::core::time::Duration::new(1u64, 500000000u32));
                ::db::harness::run_async(
                    test,
                    snapshot,
                    async |lease| adds(& <Sandbox as ::db::harness::Parameter>::from_lease(lease)).await
                )
            }
        };
        assert_eq!(expand(&arguments, &item), expected.to_string());
    }

    #[test]
    fn steps_are_called_in_the_order_they_are_written() {
        let arguments = quote! {
            snapshot = crate::testing::shop,
            run("first"),
            migrations_of(Sqlx, "migrations"),
            depends_on = "a",
            run("second", "up", "--all",),
            depends_on = ["b", "c"],
            prepare("schema-1", migrate),
        };
        let expected = quote! {
            let snapshot = test
                .extend(crate::testing::shop())
                .run::<&str>("first", [])
                .migrations_of(::db::MigrationTool::Sqlx, "migrations")
                .depends_on(["a"])
                .run::<&str>("second", ["up", "--all"])
                .depends_on(["b", "c"])
                .prepare("schema-1", migrate);
        };
        let expansion = expand(
            &arguments,
            &quote!(
                fn t(db: Sandbox) {}
            ),
        );
        assert!(expansion.contains(&expected.to_string()), "{expansion}");
    }

    #[test]
    fn without_an_argument_the_crate_is_found_or_guessed() {
        let expansion = sandboxed_db(
            quote!(),
            &quote!(
                fn t(db: Sandbox) {}
            ),
        )
        .to_string();
        assert!(expansion.contains(":: sandboxed_db :: harness :: run"), "{expansion}");
    }

    #[test]
    fn a_mistake_leaves_the_function_as_it_was() {
        let function = quote!(
            fn t(db: Sandbox) {
                body();
            }
        );
        let expansion = expand(&quote!(sed = "a"), &function);
        assert!(expansion.contains(&function.to_string()), "{expansion}");
        assert!(expansion.contains("unknown argument `sed`"), "{expansion}");
        assert!(!expansion.contains("harness"), "{expansion}");
    }

    #[test]
    fn mistakes_on_both_sides_are_shown_together() {
        let expansion = expand(
            &quote!(sed = "a", start_timeout = 0),
            &quote!(
                fn t() {}
            ),
        );
        assert_eq!(expansion.matches("compile_error !").count(), 3, "{expansion}");
    }

    #[test]
    fn what_is_no_function_is_left_as_it_was() {
        let item = quote!(
            #[derive(Debug)]
            struct Test {
                run: fn(),
            }
        );
        let expansion = expand(&quote!(), &item);
        assert!(expansion.starts_with(&item.to_string()), "{expansion}");
        assert!(expansion.contains("goes on a function"), "{expansion}");
    }
}
