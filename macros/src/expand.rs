//! From the attribute and the function to a plain test, or to several.
//!
//! A test only describes its databases and calls the harness, which knows sandboxes, timeouts and
//! failures.

use std::path::Path;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::{LitStr, ReturnType, Signature, Type, parse_quote_spanned};

use crate::args::Arguments;
use crate::attributes::{self, Split};
use crate::call;
use crate::databases::Databases;
use crate::diagnostics::{self, Diagnostics};
use crate::drivers::{self, Missing};
use crate::matrix::{self, Case, Engine};
use crate::signature::Function;

/// Expands `#[sandboxed_db(arguments)] item`.
///
/// A mistake in either leaves the function as written, beside the messages.
pub(crate) fn sandboxed_db(
    arguments: TokenStream,
    item: &TokenStream,
    package: Option<&Path>,
) -> TokenStream {
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
    if let Some(package) = package
        && let Some(missing) = drivers::missing(&function, &filled, package)
    {
        // Cases of a function that is no test would be further errors.
        let function = (!function.has_generator()).then(|| function.without_test());
        if let Missing::Report(error) = missing {
            diagnostics.push(error);
        }
        let errors = diagnostics.into_compile_errors();
        return quote!(#function #errors);
    }
    if package.is_some() && !cfg!(feature = "toml") {
        let files = databases.described.iter().flat_map(|described| described.engines.iter());
        files
            .filter_map(Engine::file)
            .for_each(|file| diagnostics.push(diagnostics::engine_without_toml(file)));
    }
    let cases = matrix::cases(&arguments, &mut diagnostics);
    let parts = Parts::new(&function, &databases, &arguments, package);
    match diagnostics.into_compile_errors() {
        None if arguments.matrix.is_some() => tests(&parts, &cases),
        None => test(&parts),
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

/// The parts that all kinds of expansion share.
struct Parts<'a> {
    function: &'a Function,
    databases: &'a Databases<'a>,
    arguments: &'a Arguments,
    krate: syn::Path,
    /// The function as written, inside the test. It keeps its name for backtraces and recursion.
    inner: TokenStream,
    /// `()` if the function returns nothing, which `#[should_panic]` needs. Else a `Result`, which
    /// attributes such as `#[serial]` expect of a test that returns a value.
    output: Option<TokenStream>,
}

impl<'a> Parts<'a> {
    fn new(
        function: &'a Function,
        databases: &'a Databases<'a>,
        arguments: &'a Arguments,
        package: Option<&Path>,
    ) -> Self {
        let (lints, signature, body) = (
            databases.lints(function.signature.asyncness.is_some()),
            function.inner_signature(),
            &function.body,
        );
        // Inside the test, so that a test that is configured away reports none.
        let missing = package.and_then(|package| databases.missing_files(package).into_compile_errors());
        let inner = quote! {
            #missing
            #[allow(#(clippy::#lints),*)]
            #signature #body
        };
        let output = (!returns_nothing(&function.signature)).then(
            || quote!(-> ::core::result::Result<::std::process::ExitCode, ::core::convert::Infallible>),
        );
        let krate = arguments.krate.clone().unwrap_or_else(|| {
            // By its name, since reading the manifest for another one costs a TOML parser.
            parse_quote_spanned!(Span::mixed_site()=> ::sandboxed_db)
        });
        Self { function, databases, arguments, krate, inner, output }
    }

    /// The attribute that makes a test, unless rstest or test_case make tests of the function.
    fn mark(&self) -> Option<TokenStream> {
        (!self.function.has_generator()).then(|| quote!(#[::core::prelude::v1::test]))
    }

    /// Returns the description of the test for the harness.
    fn described(&self, name: &TokenStream) -> TokenStream {
        let krate = &self.krate;
        // A test that could not run must not pass for one that panicked.
        let should_panic = attributes::should_panic(&self.function.attributes);
        let should_panic = should_panic.map(|expected| quote!(.should_panic(#expected)));
        quote! {
            #krate::harness::Test::new(::core::env!("CARGO_MANIFEST_DIR"), ::core::module_path!(), #name) #should_panic
        }
    }

    /// Returns the body of the function for one of the engines.
    fn run(&self, engine: usize) -> TokenStream {
        let Self { function, databases, arguments, krate, .. } = self;
        let run = call::run(&function.signature, databases, arguments, krate);
        let run = match self.output {
            None => quote_spanned!(Span::mixed_site()=> let _: ::std::process::ExitCode = #run;),
            Some(_) => quote_spanned!(Span::mixed_site()=> ::core::result::Result::Ok(#run)),
        };
        if call::is_default(databases, arguments) {
            return run;
        }
        let descriptions = call::descriptions(databases, arguments.engines.get(engine), krate);
        quote_spanned! {Span::mixed_site()=>
            let databases = #descriptions;
            #run
        }
    }
}

/// Returns the test, with the user's function inside.
fn test(parts: &Parts<'_>) -> TokenStream {
    let Parts { function: Function { visibility, signature, .. }, inner, output, .. } = parts;
    let (name, parameters) = (&signature.ident, parts.databases.outer_parameters());
    // Attributes stay outside: lint levels reach inwards, and an `#[expect]` must be met once.
    let (attributes, mark) = (parts.function.outer_attributes(), parts.mark());
    let (test, run) = (parts.described(&name.to_string().to_token_stream()), parts.run(0));
    quote_spanned! {Span::mixed_site()=>
        #(#attributes)*
        #mark
        #visibility fn #name(#(#parameters),*) #output {
            #inner

            let test = #test;
            #run
        }
    }
}

/// Returns the function, and a module of its name with a test of each case.
///
/// The function stays in its place, so that all names in it and in the attribute keep their
/// meaning.
fn tests(parts: &Parts<'_>, cases: &[Case<'_>]) -> TokenStream {
    let Parts { function: Function { visibility, signature, .. }, databases, krate, inner, output, .. } =
        parts;
    let (name, mark) = (&signature.ident, parts.mark());
    let Split { conditions, of_function, of_tests } = Split::of(parts.function.outer_attributes());
    let test = parts.described(&quote_spanned!(Span::mixed_site()=> case.name));
    let engines = (0..parts.arguments.engines.len().max(1)).map(|engine| parts.run(engine));
    let others = engines.clone().skip(1).enumerate().map(|(before, run)| {
        let engine = before + 1;
        quote_spanned!(Span::mixed_site()=> #engine => { #run })
    });
    let first = engines.clone().next();
    let (fixtures, parameters) = (databases.inner_parameters(), databases.outer_parameters());
    let filled: Vec<_> = databases.case_parameters().map(|fixture| fixture.name).collect();
    let tests = cases.iter().map(|Case { name: case, engine, version }| {
        let path = format!("{name}::{case}");
        let version = version.map(LitStr::value).unwrap_or_default();
        quote_spanned! {Span::mixed_site()=>
            #(#of_tests)*
            #mark
            fn #case(#(#parameters),*) #output {
                let case = #krate::harness::Case { name: #path, engine: #engine, version: #version };
                super::#name(case #(, #filled)*)
            }
        }
    });
    // Cases name items beside the function.
    let names = parts.function.has_generator().then(|| {
        // By name, since the prelude has an unstable `test_case`, with which a glob import
        // conflicts.
        let attributes = parts.function.case_attributes();
        quote!(
            #[allow(unused_imports)]
            use super::{*, #(#attributes),*};
        )
    });
    quote_spanned! {Span::mixed_site()=>
        #[cfg(test)]
        #(#conditions)*
        #(#of_function)*
        #visibility fn #name(case: #krate::harness::Case #(, #fixtures)*) #output {
            #inner

            let test = #test;
            match case.engine {
                #(#others)*
                _ => { #first }
            }
        }

        #[cfg(test)]
        #(#conditions)*
        mod #name {
            #names
            #(#tests)*
        }
    }
}

fn returns_nothing(signature: &Signature) -> bool {
    match &signature.output {
        ReturnType::Default => true,
        ReturnType::Type(_, ty) => matches!(&**ty, Type::Tuple(tuple) if tuple.elems.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(arguments: TokenStream, item: &str) -> String {
        // With a path, so that the tests do not depend on a manifest.
        sandboxed_db(quote!(crate = ::db, #arguments), &item.parse().unwrap(), None).to_string()
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
                    "adds"
                );
                let _: ::std::process::ExitCode = ::db::harness::Asked::<Sandbox>::new().run_default(test, adds);
            }
        };
        let expansion = expand(quote!(), "fn adds(db: Sandbox) { assert!(db.works()); }");
        assert_eq!(expansion, expected.to_string());
    }

    #[test]
    fn all_arguments_expand_together() {
        let arguments = quote! {
            image = "oci:images/pg",
            migrations = "migrations",
            seed = ["a.sql", "b.sql"],
            settings(max_connections = 50, jit = false),
            tls,
            start_timeout = "1500ms",
            max_age = "1d",
            flavor = "multi_thread",
            worker_threads = 4,
            own(snapshot = crate::other, seed = "c.csv", keep = "on_failure"),
        };
        let item = "#[doc = \"d\"] #[ignore] pub(crate) async fn adds(mut db: &Sandbox, own: Pool) \
                    -> Result<(), Error> { db.add().await }";
        let expected = quote! {
            #[doc = "d"]
            #[ignore]
            #[::core::prelude::v1::test]
            pub(crate) fn adds() -> ::core::result::Result<::std::process::ExitCode, ::core::convert::Infallible> {
                #[allow(clippy::needless_pass_by_value, clippy::ptr_arg, clippy::unused_async)]
                async fn adds(mut db: &Sandbox, own: Pool) -> Result<(), Error> { db.add().await }

                let test = ::db::harness::Test::new(
                    ::core::env!("CARGO_MANIFEST_DIR"),
                    ::core::module_path!(),
                    "adds"
                );
                let databases = (
                    test.snapshot()
                        .image("oci:images/pg")
                        .migrations("migrations")
                        .seed("a.sql")
                        .seed("b.sql")
                        .setting("max_connections", "50")
                        .setting("jit", "off")
                        .tls()
                        .start_timeout(::core::time::Duration::new(1u64, 500000000u32))
                        .max_age(::core::time::Duration::new(86400u64, 0u32)),
                    (test.extend(crate::other()).seed("c.csv").keep(::db::Keep::OnFailure), ())
                );
                ::core::result::Result::Ok(::db::harness::run_async(
                    test,
                    ::db::harness::Flavor::MultiThread(::core::option::Option::Some(4)),
                    databases,
                    (),
                    |leases, waiter, ()| {
                        let parameter_0 = ::db::harness::Asked::<Sandbox>::new().make(&leases.0, waiter);
                        let parameter_1 = ::db::harness::Asked::<Pool>::new().make(&leases.1.0, waiter);
                        waiter.run(::core::pin::pin!(async move {
                            use ::db::harness::Noted as _;
                            ::db::harness::Returned(
                                adds(&parameter_0.by_reference(), parameter_1.by_value()).await
                            ).noted()
                        }))
                    }
                ))
            }
        };
        // The lexer takes `1.0` for one number.
        let expected = expected.to_string().replace("leases . 1.0", "leases . 1 . 0");
        assert_eq!(expand(arguments, item), expected);
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
            let databases = test
                .extend(crate::testing::shop())
                .run::<&str>("first", [])
                .migrations_of(::db::MigrationTool::Sqlx, "migrations")
                .depends_on(["a"])
                .run::<&str>("second", ["up", "--all"])
                .depends_on(["b", "c"])
                .prepare("schema-1", migrate);
        };
        let expansion = expand(arguments, "fn t(db: Sandbox) {}");
        assert!(expansion.contains(&expected.to_string()), "{expansion}");
    }

    #[test]
    fn rstest_is_left_what_it_fills() {
        let item = "#[rstest] #[case(1)] async fn t(db: Sandbox, #[case] mut n: u8, #[future] later: u8) {}";
        let expansion = expand(quote!(), item);
        let outer = quote! {
            #[rstest]
            #[case(1)]
            fn t(#[case] n: u8, #[future] later: u8) {
                #[allow(clippy::needless_pass_by_value, clippy::unused_async)]
                async fn t(db: Sandbox, mut n: u8, later: impl ::core::future::Future<Output = u8>) {}
            }
        };
        assert!(expansion.starts_with(outer.to_string().trim_end_matches('}').trim_end()), "{expansion}");
        assert!(
            expansion.contains("run (:: core :: pin :: pin ! (t (parameter_0 . by_value () , n , later)))"),
            "{expansion}"
        );
    }

    #[test]
    fn lists_describe_databases_of_parameters() {
        let one = "fn t(one: Pool) {}";
        for (arguments, item, complaint) in [
            (quote!(other()), one, "own database: `one`"),
            (quote!(one(), one()), one, "given twice"),
            (quote!(one(crate = db)), one, "`crate` applies to the whole test"),
            (quote!(one(one())), one, "unknown argument `one`"),
            (quote!(seed = "a.sql", one()), one, "every parameter has its own database"),
            (quote!(flavor = "multi_thread"), one, "only an `async fn` runs on a runtime"),
            (quote!(worker_threads = 2), "async fn t(one: Pool) {}", "needs `flavor ="),
            (quote!(), "fn t(one: Sandbox, two: &Sandbox) {}", "takes the sandbox by value already"),
        ] {
            let expansion = expand(arguments, item);
            assert!(expansion.contains(complaint), "{complaint}: {expansion}");
        }
    }

    #[test]
    fn an_engine_is_named_where_it_would_be_a_guess() {
        let mistake = "nothing names the one for this parameter; write `url(engine = Postgres)`";
        let is_refused = |arguments: TokenStream| {
            expand(arguments, "fn t(url: String, cache: Sandbox<Redis>) {}").contains(mistake)
        };
        for arguments in [
            quote!(cache(engine = Redis)),
            quote!(cache(engine = Redis::new()), url(seed = "a.sql")),
            quote!(cache(engine = other()), settings(a = 1)),
        ] {
            assert!(is_refused(arguments.clone()), "{arguments}");
        }
        for arguments in [
            quote!(cache()),
            quote!(cache(engine = db::Postgres::new())),
            quote!(cache(engine = Redis), engine = Redis),
            quote!(cache(engine = Redis), engine = [Postgres, Redis]),
            quote!(cache(engine = Redis), url(engine = Postgres)),
            quote!(cache(engine = Redis), snapshot = shop),
        ] {
            assert!(!is_refused(arguments.clone()), "{arguments}");
        }
        let expansion = expand(quote!(cache(engine = Redis)), "fn t(db: Pool, cache: Connection) {}");
        let check = quote!(::db::harness::Asked::<Pool>::new().name_the_engine(););
        assert!(expansion.contains(&check.to_string()), "{expansion}");
        assert_eq!(expansion.matches("name_the_engine").count(), 1, "{expansion}");
    }

    #[test]
    fn without_an_argument_the_crate_is_found_or_guessed() {
        let item = "fn t(db: Sandbox) {}".parse().unwrap();
        let expansion = sandboxed_db(quote!(), &item, None).to_string();
        assert!(expansion.contains(":: sandboxed_db :: harness :: Test"), "{expansion}");
    }

    #[test]
    fn a_mistake_leaves_the_function_as_it_was() {
        let function = "fn t(db: Sandbox) { body(); }";
        let expansion = expand(quote!(sed = "a"), function);
        assert!(expansion.contains(&function.parse::<TokenStream>().unwrap().to_string()), "{expansion}");
        assert!(expansion.contains("unknown argument `sed`"), "{expansion}");
        assert!(!expansion.contains("harness"), "{expansion}");
    }

    #[test]
    fn mistakes_on_both_sides_are_shown_together() {
        let expansion = expand(quote!(sed = "a", start_timeout = 0), "fn t() {}");
        assert_eq!(expansion.matches("compile_error !").count(), 3, "{expansion}");
    }

    #[test]
    fn other_items_stay_unchanged() {
        let item = "#[derive(Debug)] struct Test { run: fn() }";
        let expansion = expand(quote!(), item);
        assert!(expansion.starts_with(&item.parse::<TokenStream>().unwrap().to_string()), "{expansion}");
        assert!(expansion.contains("goes on a function"), "{expansion}");
    }
}
