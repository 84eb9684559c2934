//! The body of a test: descriptions of its databases, and the call of the harness.
//!
//! All paths are absolute and local names are hygienic, so that no name of the user's interferes.

use std::iter;
use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Index, Path, ReturnType, Signature};

use crate::args::Arguments;
use crate::databases::{Databases, Described, Made};
use crate::matrix::Engine;
use crate::signature::{CaseParameter, Parameter};
use crate::values::Setting;

/// Returns `(test.snapshot()…, (test.snapshot()…, ()))`. The first is for the given engine and, in
/// a matrix, for the version of the case. A [single parameter](Databases::single_parameter)'s
/// description stands alone.
pub(crate) fn descriptions(databases: &Databases<'_>, engine: Option<&Engine>, krate: &Path) -> TokenStream {
    let snapshots = databases.described.iter().map(|described| match described {
        Described::Common(arguments) if arguments.matrix.is_some() && !arguments.versions.is_empty() => {
            let version = quote_spanned!(Span::mixed_site()=> case.version);
            snapshot(arguments, engine, Some(version), arguments.search_migrations(), krate)
        }
        Described::Common(arguments) => {
            snapshot(arguments, engine, version(arguments), arguments.search_migrations(), krate)
        }
        Described::Own(arguments) => {
            snapshot(arguments, arguments.engines.first(), version(arguments), false, krate)
        }
    });
    if databases.single_parameter().is_some() {
        return snapshots.collect();
    }
    snapshots.rev().fold(quote!(()), |rest, snapshot| quote_spanned!(Span::mixed_site()=> (#snapshot, #rest)))
}

fn version(arguments: &Arguments) -> Option<TokenStream> {
    arguments.versions.first().map(ToTokens::to_token_stream)
}

/// `test.snapshot().migrations("…").seed("…")…`
fn snapshot(
    arguments: &Arguments,
    engine: Option<&Engine>,
    version: Option<TokenStream>,
    search: bool,
    krate: &Path,
) -> TokenStream {
    let Arguments { snapshot, packages, image, steps, settings, tls, start_timeout, max_age, keep, .. } =
        arguments;
    let begin = match (snapshot, engine) {
        (None, Some(engine)) if engine.file().is_some() => {
            let file = engine.file();
            quote_spanned!(Span::mixed_site()=> test.described(#file))
        }
        (Some(function), _) => quote_spanned!(Span::mixed_site()=> test.extend(#function())),
        (None, Some(engine)) => {
            quote_spanned!(Span::mixed_site()=> test.extend(#krate::Snapshot::new(#engine)))
        }
        (None, None) if search => quote_spanned!(Span::mixed_site()=> test.discovered()),
        (None, None) => quote_spanned!(Span::mixed_site()=> test.snapshot()),
    };
    let version = version.map(|version| quote!(.version(#version)));
    let packages = packages.iter().map(|name| quote!(.package(#name)));
    let image = image.as_ref().map(|reference| quote!(.image(#reference)));
    let steps = steps.iter().map(|step| step.call(krate));
    let settings = settings.iter().map(|Setting { name, value }| quote!(.setting(#name, #value)));
    let tls = tls.then(|| quote!(.tls()));
    let duration = |duration: Duration| {
        let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
        quote!(::core::time::Duration::new(#seconds, #nanoseconds))
    };
    let start_timeout = start_timeout.map(duration).map(|limit| quote!(.start_timeout(#limit)));
    let max_age = max_age.map(duration).map(|age| quote!(.max_age(#age)));
    let keep = keep.as_ref().map(|when| quote!(.keep(#krate::Keep::#when)));
    quote_spanned!(Span::mixed_site()=> #begin #version #(#packages)* #image #(#steps)* #(#settings)* #tls #start_timeout #max_age #keep)
}

/// Returns `true` if a [single parameter](Databases::single_parameter) has no arguments at all, so
/// that the harness describes its database.
pub(crate) fn is_default(databases: &Databases<'_>, arguments: &Arguments) -> bool {
    databases.single_parameter().is_some()
        && arguments.runtime.asked.is_none()
        && databases.described.iter().all(|described| {
            let Arguments { start_timeout, max_age, keep, .. } = &**described;
            !described.describe_a_database() && start_timeout.is_none() && max_age.is_none() && keep.is_none()
        })
}

/// Returns the call of the harness, which makes the parameters, runs the function and judges its
/// result.
///
/// The compiler reports two mistakes, since it knows types: a parameter that cannot be made from a
/// database, and a result that is no outcome of a test. The tokens that make a parameter carry the
/// span of its type, and the call of the function that of the return type, so both are reported
/// there.
pub(crate) fn run(
    signature: &Signature,
    databases: &Databases<'_>,
    arguments: &Arguments,
    krate: &Path,
) -> TokenStream {
    let here = Span::mixed_site();
    let name = &signature.ident;
    let is_async = signature.asyncness.is_some();
    let output = match &signature.output {
        ReturnType::Default => TokenStream::new(),
        ReturnType::Type(_, ty) => ty.to_token_stream(),
    };
    let flavor = is_async.then(|| {
        let asked = flavor(arguments);
        quote_spanned!(here=> #krate::harness::Flavor::#asked,)
    });
    let is_default = is_default(databases, arguments);
    let run = match (is_async, is_default) {
        (false, false) => quote_spanned!(here=> run),
        (false, true) => quote_spanned!(here=> run_default),
        (true, false) => quote_spanned!(here=> run_async),
        (true, true) => quote_spanned!(here=> run_async_default),
    };
    if let Some(Parameter { ty, .. }) = databases.single_parameter() {
        let run = located_at(
            quote_spanned!(here=> #krate::harness::Asked::<#ty>::new().#run),
            &ty.to_token_stream(),
        );
        let reference = is_async.then(|| quote_spanned!(here=> &));
        let body = match (output.is_empty(), is_async) {
            (true, _) => name.to_token_stream(),
            (false, false) => {
                let noted = noted(quote_spanned!(here=> #name(parameter)), krate);
                quote_spanned!(here=> |parameter: #ty| #noted)
            }
            (false, true) => {
                let noted = noted(quote_spanned!(here=> #name(parameter).await), krate);
                quote_spanned!(here=> |parameter: #ty| async move #noted)
            }
        };
        let body = located_at(quote_spanned!(here=> #reference #body), &output);
        return match is_default {
            true => quote_spanned!(here=> #run(test, #body)),
            false => {
                let databases = located_at(quote_spanned!(here=> databases), &ty.to_token_stream());
                quote_spanned!(here=> #run(test, #flavor #databases, #body))
            }
        };
    }
    let checks = databases.without_engine().map(|Parameter { ty, .. }| {
        let check = quote_spanned!(here=> #krate::harness::Asked::<#ty>::new().name_the_engine());
        let check = located_at(check, &ty.to_token_stream());
        quote_spanned!(here=> #check;)
    });
    let (mut makings, mut values, mut filled): (Vec<_>, _, _) = (checks.collect(), Vec::new(), Vec::new());
    for (index, made) in databases.parameters.iter().enumerate() {
        let (parameter, database) = match made {
            Made::FromCase(CaseParameter { name, awaited, .. }) => {
                filled.push(name);
                values.push(if *awaited { quote!(#name.await) } else { name.to_token_stream() });
                continue;
            }
            Made::From(parameter, database) => (parameter, *database),
        };
        let made = format_ident!("parameter_{index}", span = here);
        let (lease, ty) = (lease(database), parameter.ty);
        let make = quote_spanned!(here=> #krate::harness::Asked::<#ty>::new().make);
        let [make, of] =
            [make, quote_spanned!(here=> &#lease)].map(|tokens| located_at(tokens, &ty.to_token_stream()));
        makings.push(quote_spanned!(here=> let #made = #make(#of, waiter);));
        values.push(if parameter.by_reference {
            quote_spanned!(here=> &#made.by_reference())
        } else {
            quote_spanned!(here=> #made.by_value())
        });
    }
    let outcome = if is_async {
        let mut body = quote_spanned!(here=> #name(#(#values),*));
        if !output.is_empty() {
            let noted = noted(quote_spanned!(here=> #body.await), krate);
            body = quote!(async move #noted);
        } else if databases.case_parameters().any(|fixture| fixture.awaited) {
            body = quote!(async move { #body.await });
        }
        let body = located_at(quote_spanned!(here=> ::core::pin::pin!(#body)), &output);
        quote_spanned!(here=> waiter.run(#body))
    } else {
        let mut body = quote_spanned!(here=> #name(#(#values),*));
        if !output.is_empty() {
            body = noted(body, krate);
        }
        let body = located_at(body, &output);
        quote_spanned!(here=> #krate::harness::returned(#body))
    };
    let filled = quote_spanned!(here=> (#(#filled,)*));
    quote_spanned! {here=>
        #krate::harness::#run(test, #flavor databases, #filled, |leases, waiter, #filled| {
            #(#makings)*
            #outcome
        })
    }
}

/// Returns the value of `call`. The error of a `Result` is noted for the report.
fn noted(call: TokenStream, krate: &Path) -> TokenStream {
    quote_spanned! {Span::mixed_site()=> {
        use #krate::harness::Noted as _;
        #krate::harness::Returned(#call).noted()
    }}
}

fn flavor(arguments: &Arguments) -> TokenStream {
    match (&arguments.runtime.multi_thread, &arguments.runtime.workers) {
        (false, _) => quote!(CurrentThread),
        (true, None) => quote!(MultiThread(::core::option::Option::None)),
        (true, Some(workers)) => quote!(MultiThread(::core::option::Option::Some(#workers))),
    }
}

/// Returns `leases.1.1.0` for the third database.
fn lease(database: usize) -> TokenStream {
    let rests = iter::repeat_n(Index::from(1), database);
    quote_spanned!(Span::mixed_site()=> leases #(.#rests)*.0)
}

/// Gives the tokens the spans of `place`, from its first to its last. Names resolve as before.
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
