//! From the attribute and the function to a plain test.
//!
//! The test only says what it wants and hands it to the harness; what a sandbox is, how long to wait for it and what
//! counts as a failure is decided there. All paths are absolute, and local names are hygienic, so that nothing the user
//! has named can come in between.

use std::iter;

use proc_macro_crate::FoundCrate;
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Ident, Index, Path, ReturnType, Signature, Type, parse_quote};

use crate::args::{Arguments, Step};
use crate::databases::{Databases, Made};
use crate::diagnostics::{self, Diagnostics};
use crate::signature::Function;
use crate::values::Setting;

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
    let filled = function.check(&mut diagnostics);
    check_runtime(&arguments, &function, &mut diagnostics);
    let databases = Databases::assign(&filled, &arguments, &function.signature.ident, &mut diagnostics);
    match diagnostics.into_compile_errors() {
        None => test(&function, &databases, &arguments),
        errors => {
            let function = function.without_test();
            quote!(#function #errors)
        }
    }
}

fn check_runtime(arguments: &Arguments, function: &Function, diagnostics: &mut Diagnostics) {
    let runtime = &arguments.runtime;
    if let (Some(asked), None) = (runtime.asked, function.signature.asyncness) {
        diagnostics.push(diagnostics::runtime_without_async(asked));
    } else if let (Some(workers), false) = (&runtime.workers, runtime.multi_thread) {
        diagnostics.push(diagnostics::workers_of_one_thread(workers.span()));
    }
}

/// The test, with the user's function inside.
fn test(function: &Function, databases: &Databases<'_>, arguments: &Arguments) -> TokenStream {
    let Function { attributes, visibility, signature, body } = function;
    let krate = arguments.krate.clone().unwrap_or_else(find_crate);
    let function_name = &signature.ident;
    let name = function_name.to_string();
    let snapshots = databases.described.iter().rev().fold(quote!(()), |rest, arguments| {
        let snapshot = snapshot(arguments, &krate);
        quote_spanned!(Span::mixed_site()=> (#snapshot, #rest))
    });
    // A test that must panic would pass for one that could not be run, so the harness has to know.
    let should_panic = function.should_panic().then(|| quote!(.should_panic()));
    let run = run(signature, databases, arguments, &krate);
    // What a test returns is judged by the harness; only for `#[should_panic]` must it be `()`.
    let (output, run) = if returns_nothing(signature) {
        (None, quote_spanned!(Span::mixed_site()=> let _: ::std::process::ExitCode = #run;))
    } else {
        (Some(quote!(-> ::std::process::ExitCode)), run)
    };
    // rstest makes tests of the function that it finds below.
    let test = (!function.is_rstest()).then(|| quote!(#[::core::prelude::v1::test]));
    let lints = databases.lints();
    let parameters = databases.outer_parameters();
    let inner = function.inner_signature();

    // The function keeps its name, for backtraces and so that it can call itself. Its attributes stay outside: lint
    // levels reach inwards, and an `#[expect]` is to be met once.
    quote_spanned! {Span::mixed_site()=>
        #(#attributes)*
        #test
        #visibility fn #function_name(#(#parameters),*) #output {
            #[allow(#(clippy::#lints),*)]
            #inner #body

            let test = #krate::harness::Test::new(
                ::core::env!("CARGO_MANIFEST_DIR"),
                ::core::module_path!(),
                #name,
            ) #should_panic;
            let databases = #snapshots;
            #run
        }
    }
}

fn returns_nothing(signature: &Signature) -> bool {
    match &signature.output {
        ReturnType::Default => true,
        ReturnType::Type(_, ty) => matches!(&**ty, Type::Tuple(tuple) if tuple.elems.is_empty()),
    }
}

/// `test.snapshot().migrations("…").seed("…")…`
fn snapshot(arguments: &Arguments, krate: &Path) -> TokenStream {
    let Arguments { snapshot, steps, settings, start_timeout, keep, runtime: _, own: _, krate: _ } =
        arguments;
    let begin = match snapshot {
        Some(function) => quote_spanned!(Span::mixed_site()=> test.extend(#function())),
        None => quote_spanned!(Span::mixed_site()=> test.snapshot()),
    };
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
    let keep = keep.as_ref().map(|when| quote!(.keep(#krate::Keep::#when)));
    quote_spanned!(Span::mixed_site()=> #begin #(#steps)* #(#settings)* #start_timeout #keep)
}

/// The call of the harness, which makes the parameters, runs the function and judges what it returns.
///
/// Two mistakes are left to the compiler, which knows types: a parameter that cannot be made from a database, and a
/// result that is no outcome of a test. So that it reports them where they are written, the call that makes the parameter
/// pretends to stand at its type, and the path of `run` at the return type.
fn run(signature: &Signature, databases: &Databases<'_>, arguments: &Arguments, krate: &Path) -> TokenStream {
    let here = Span::mixed_site();
    let name = &signature.ident;
    let is_async = signature.asyncness.is_some();
    let (mut makings, mut values) = (Vec::new(), Vec::new());
    for (index, made) in databases.parameters.iter().enumerate() {
        let (parameter, database) = match made {
            Made::ByRstest { name, .. } => {
                values.push(name.to_token_stream());
                continue;
            }
            Made::From(parameter, database) => (parameter, *database),
        };
        let made = format_ident!("parameter_{index}", span = here);
        let lease = lease(database);
        let ty = parameter.ty;
        let asked = quote_spanned!(here=> #krate::harness::Asked::<#ty>::new().kind());
        makings.push(if is_async {
            let make = located_at(quote_spanned!(here=> make), &ty.to_token_stream());
            quote_spanned!(here=> let #made = #asked.#make(&#lease).await?;)
        } else {
            let make = located_at(quote_spanned!(here=> make_now), &ty.to_token_stream());
            quote_spanned!(here=> let #made = #asked.#make(&#lease, waiter)?;)
        });
        values.push(if parameter.by_reference {
            quote_spanned!(here=> &#made.by_reference())
        } else {
            quote_spanned!(here=> #made.by_value())
        });
    }
    let import = quote_spanned! {here=>
        #[allow(unused_imports)]
        use #krate::harness::Kind as _;
    };
    let (mut run, first, body);
    if is_async {
        run = quote_spanned!(here=> #krate::harness::run_async);
        let flavor = flavor(arguments);
        first = quote_spanned!(here=> test, #krate::harness::Flavor::#flavor);
        body = quote_spanned!(here=> async |leases| {
            #import
            #(#makings)*
            ::core::result::Result::Ok(#name(#(#values),*).await)
        });
    } else {
        run = quote_spanned!(here=> #krate::harness::run);
        first = quote_spanned!(here=> test);
        body = quote_spanned!(here=> |leases, waiter| {
            #import
            #(#makings)*
            ::core::result::Result::Ok(#name(#(#values),*))
        });
    }
    if let ReturnType::Type(_, ty) = &signature.output {
        run = located_at(run, &ty.to_token_stream());
    }
    quote_spanned!(here=> #run(#first, databases, #body))
}

fn flavor(arguments: &Arguments) -> TokenStream {
    match (&arguments.runtime.multi_thread, &arguments.runtime.workers) {
        (false, _) => quote!(CurrentThread),
        (true, None) => quote!(MultiThread(::core::option::Option::None)),
        (true, Some(workers)) => quote!(MultiThread(::core::option::Option::Some(#workers))),
    }
}

/// `leases.1.1.0` for the third.
fn lease(database: usize) -> TokenStream {
    let rests = iter::repeat_n(Index::from(1), database);
    quote_spanned!(Span::mixed_site()=> leases #(.#rests)*.0)
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
                let databases = (test.snapshot(), ());
                let _: ::std::process::ExitCode = ::db::harness::run(test, databases, |leases, waiter| {
                    #[allow(unused_imports)]
                    use ::db::harness::Kind as _;
                    let parameter_0 = ::db::harness::Asked::<Sandbox>::new().kind().make_now(&leases.0, waiter)?;
                    ::core::result::Result::Ok(adds(parameter_0.by_value()))
                });
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
            flavor = "multi_thread",
            worker_threads = 4,
            own(snapshot = crate::other, seed = "c.csv", keep = "on_failure"),
        };
        let item = quote! {
            /// Documented.
            #[ignore]
            pub(crate) async fn adds(mut db: &Sandbox, own: Pool) -> Result<(), Error> { db.add().await }
        };
        let expected = quote! {
            /// Documented.
            #[ignore]
            #[::core::prelude::v1::test]
            pub(crate) fn adds() -> ::std::process::ExitCode {
                #[allow(clippy::needless_pass_by_value, clippy::ptr_arg)]
                async fn adds(mut db: &Sandbox, own: Pool) -> Result<(), Error> { db.add().await }

                let test = ::db::harness::Test::new(
                    ::core::env!("CARGO_MANIFEST_DIR"),
                    ::core::module_path!(),
                    "adds",
                );
                let databases = (
                    test.snapshot()
                        .migrations("migrations")
                        .seed("a.sql")
                        .seed("b.sql")
                        .setting("max_connections", "50")
                        .setting("jit", "off")
                        .start_timeout(::core::time::Duration::new(1u64, 500000000u32)),
                    (test.extend(crate::other()).seed("c.csv").keep(::db::Keep::OnFailure), ())
                );
                ::db::harness::run_async(
                    test,
                    ::db::harness::Flavor::MultiThread(::core::option::Option::Some(4)),
                    databases,
                    async |leases| {
                        #[allow(unused_imports)]
                        use ::db::harness::Kind as _;
                        let parameter_0 = ::db::harness::Asked::<Sandbox>::new().kind().make(&leases.0).await?;
                        let parameter_1 = ::db::harness::Asked::<Pool>::new().kind().make(&leases.1.0).await?;
                        ::core::result::Result::Ok(
                            adds(&parameter_0.by_reference(), parameter_1.by_value()).await
                        )
                    }
                )
            }
        };
        // The lexer takes `1.0` for one number.
        let expected = expected.to_string().replace("leases . 1.0", "leases . 1 . 0");
        assert_eq!(expand(&arguments, &item), expected);
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
            let databases = (test
                .extend(crate::testing::shop())
                .run::<&str>("first", [])
                .migrations_of(::db::MigrationTool::Sqlx, "migrations")
                .depends_on(["a"])
                .run::<&str>("second", ["up", "--all"])
                .depends_on(["b", "c"])
                .prepare("schema-1", migrate), ());
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
    fn rstest_is_left_what_it_fills() {
        let item = quote! {
            #[rstest]
            #[case(1)]
            async fn t(db: Sandbox, #[case] mut n: u8, #[future] later: u8) {}
        };
        let expansion = expand(&quote!(), &item);
        let outer = quote! {
            #[rstest]
            #[case(1)]
            fn t(#[case] n: u8, #[future] later: u8) {
                #[allow(clippy::needless_pass_by_value)]
                async fn t(db: Sandbox, mut n: u8, later: impl ::core::future::Future<Output = u8>) {}
            }
        };
        assert!(expansion.starts_with(outer.to_string().trim_end_matches('}').trim_end()), "{expansion}");
        assert!(expansion.contains("t (parameter_0 . by_value () , n , later) . await"), "{expansion}");
    }

    #[test]
    fn databases_are_those_of_parameters() {
        let complaints = |arguments: TokenStream, item: TokenStream, complaint: &str| {
            let expansion = expand(&arguments, &item);
            assert!(expansion.contains(complaint), "{complaint}: {expansion}");
        };
        let one = quote!(
            fn t(one: Pool) {}
        );
        complaints(quote!(other()), one.clone(), "own: `one`");
        complaints(quote!(one(), one()), one.clone(), "given twice");
        complaints(quote!(one(crate = db)), one.clone(), "`crate` is of the whole test");
        complaints(quote!(one(one())), one.clone(), "unknown argument `one`");
        complaints(quote!(seed = "a.sql", one()), one.clone(), "every parameter has a database of its own");
        complaints(quote!(flavor = "multi_thread"), one, "only an `async fn` runs on a runtime");
        let asynchronous = quote!(
            async fn t(one: Pool) {}
        );
        complaints(quote!(worker_threads = 2), asynchronous, "needs `flavor =");
        let two = quote!(
            fn t(one: Sandbox, two: &Sandbox) {}
        );
        complaints(quote!(), two, "takes the sandbox by value already");
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
