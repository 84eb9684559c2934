//! The database of each parameter.
//!
//! The arguments of the attribute describe one database for all parameters, except those with a
//! list: `orders(migrations = "orders")` describes the database of the parameter `orders` alone.
//! Lists are named for parameters, so that a test names a database once.

use std::path::Path;

use proc_macro2::TokenStream;
use quote::{ToTokens as _, format_ident, quote};
use syn::{Ident, PatType, Type};

use crate::args::Arguments;
use crate::attributes;
use crate::diagnostics::{self, Diagnostics};
use crate::files;
use crate::signature::{CaseParameter, Filled, Parameter};

/// The databases of a test, and its parameters in their order.
pub(crate) struct Databases<'a> {
    pub(crate) described: Vec<Described<'a>>,
    pub(crate) parameters: Vec<Made<'a>>,
}

/// The description of one database.
pub(crate) enum Described<'a> {
    Common(&'a Arguments),
    Own(Box<Arguments>),
}

/// The origin of a parameter.
pub(crate) enum Made<'a> {
    /// The database with this index.
    From(&'a Parameter<'a>, usize),
    FromCase(&'a CaseParameter<'a>),
}

impl std::ops::Deref for Described<'_> {
    type Target = Arguments;

    fn deref(&self) -> &Arguments {
        match self {
            Self::Common(arguments) => arguments,
            Self::Own(arguments) => arguments,
        }
    }
}

impl<'a> Databases<'a> {
    pub(crate) fn assign(
        filled: &'a [Filled<'a>],
        arguments: &'a Arguments,
        function: &Ident,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let own = own(filled, arguments, diagnostics);
        let has_own = |parameter: &Parameter<'_>| {
            let name = parameter.name?;
            own.iter().position(|(owner, _)| *owner == name)
        };
        let by_database = || {
            filled.iter().filter_map(|filled| match filled {
                Filled::FromDatabase(parameter) => Some(parameter),
                Filled::FromCase(_) => None,
            })
        };
        let common = by_database().any(|parameter| has_own(parameter).is_none());
        if !common && by_database().next().is_some() && arguments.describe_a_database() {
            diagnostics.push(diagnostics::database_of_nobody(function));
        }
        let first_own = usize::from(common);
        let parameters = filled.iter().map(|filled| match filled {
            Filled::FromDatabase(parameter) => {
                Made::From(parameter, has_own(parameter).map_or(0, |own| first_own + own))
            }
            Filled::FromCase(fixture) => Made::FromCase(fixture),
        });
        let parameters = parameters.collect();
        let own = own.into_iter().map(|(_, arguments)| Described::Own(Box::new(arguments)));
        let described = common.then_some(Described::Common(arguments)).into_iter().chain(own).collect();
        let databases = Self { described, parameters };
        databases.check_owners(diagnostics);
        databases.check_engines(diagnostics);
        databases
    }

    /// Checks that a parameter that takes the sandbox by value is the only one that takes it. Types
    /// with other names are checked by the harness.
    fn check_owners(&self, diagnostics: &mut Diagnostics) {
        for database in 0..self.described.len() {
            let itself = self.parameters.iter().filter_map(|made| match made {
                Made::From(parameter, of) if *of == database && is_sandbox(parameter.ty) => Some(parameter),
                _ => None,
            });
            let itself: Vec<_> = itself.collect();
            if itself.len() > 1
                && let Some(owner) = itself.iter().rev().find(|parameter| !parameter.by_reference)
            {
                diagnostics.push(diagnostics::two_owners(owner.ty));
            }
        }
    }

    /// Returns the parameter if it is the only one and taken by value: the harness then takes the
    /// function itself. The future of an `async fn` with a reference borrows it, so such functions
    /// share no type.
    pub(crate) fn single_parameter(&self) -> Option<&'a Parameter<'a>> {
        match &self.parameters[..] {
            [Made::From(parameter, _)] if !parameter.by_reference && self.described.len() == 1 => {
                Some(parameter)
            }
            _ => None,
        }
    }

    /// Reports files that the descriptions name and that do not exist in the package.
    pub(crate) fn missing_files(&self, package: &Path) -> Diagnostics {
        let mut diagnostics = Diagnostics::default();
        for described in &self.described {
            files::check(described, package, &mut diagnostics);
        }
        diagnostics
    }

    /// Returns the parameters of cases and fixtures, for the function that rstest or test_case
    /// finds.
    pub(crate) fn outer_parameters(&self) -> Vec<TokenStream> {
        let parameters = self.case_parameters().map(
            |CaseParameter { name, written: PatType { attrs, ty, .. }, .. }| {
                // Awaited in the inner function, since the one that rstest finds is not `async`.
                let attributes = attrs.iter().map(|attribute| match attributes::is_awaited(attribute) {
                    true => quote!(#[future]),
                    false => attribute.to_token_stream(),
                });
                quote!(#(#attributes)* #name: #ty)
            },
        );
        parameters.collect()
    }

    /// Returns the same parameters, for a function that takes their values.
    pub(crate) fn inner_parameters(&self) -> Vec<TokenStream> {
        let parameters = self.case_parameters().map(
            |CaseParameter { name, written: PatType { attrs, ty, .. }, .. }| match attrs
                .iter()
                .any(attributes::is_future)
            {
                true => quote!(#name: impl ::core::future::Future<Output = #ty>),
                false => quote!(#name: #ty),
            },
        );
        parameters.collect()
    }

    /// Returns the parameters of cases and fixtures.
    pub(crate) fn case_parameters(&self) -> impl Iterator<Item = &CaseParameter<'a>> {
        self.parameters.iter().filter_map(|made| match made {
            Made::From(..) => None,
            Made::FromCase(fixture) => Some(*fixture),
        })
    }

    /// Returns the lints of clippy to allow: for a `&String`, for a `Sandbox` that is only read,
    /// for an `async fn` that needs only its runtime.
    pub(crate) fn lints(&self, is_async: bool) -> Vec<Ident> {
        let taken = |reference: bool| {
            self.parameters
                .iter()
                .any(|made| matches!(made, Made::From(parameter, _) if parameter.by_reference == reference))
        };
        let by_value = taken(false).then(|| format_ident!("needless_pass_by_value"));
        let by_reference = taken(true).then(|| format_ident!("ptr_arg"));
        let waits_for_nothing = is_async.then(|| format_ident!("unused_async"));
        by_value.into_iter().chain(by_reference).chain(waits_for_nothing).collect()
    }
}

/// Returns the arguments of the parameters with a separate database.
fn own<'a>(
    filled: &[Filled<'_>],
    arguments: &'a Arguments,
    diagnostics: &mut Diagnostics,
) -> Vec<(&'a Ident, Arguments)> {
    let names: Vec<&Ident> = filled
        .iter()
        .filter_map(|filled| match filled {
            Filled::FromDatabase(parameter) => parameter.name,
            Filled::FromCase(_) => None,
        })
        .collect();
    let mut own: Vec<(&Ident, Arguments)> = Vec::new();
    for (name, tokens) in &arguments.own {
        if !names.contains(&name) {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            diagnostics.push(diagnostics::unknown_parameter(name, &Arguments::names(), &names));
        } else if own.iter().any(|(earlier, _)| *earlier == name) {
            diagnostics.push(diagnostics::duplicate_argument(name, None));
        } else {
            let arguments = Arguments::parse_own(tokens.clone(), diagnostics);
            if let Some(list) = arguments.matrix {
                diagnostics.push(diagnostics::matrix_of_a_parameter(list));
            }
            own.push((name, arguments));
        }
    }
    own
}

fn is_sandbox(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Sandbox"),
        Type::Group(group) => is_sandbox(&group.elem),
        _ => ty.to_token_stream().to_string() == "Sandbox",
    }
}
