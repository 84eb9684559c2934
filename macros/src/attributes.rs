//! The attributes above the function and its parameters, and the owner of each.

use proc_macro2::TokenStream;
use syn::parse::{ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Ident, Lit, Meta, Path, Token, parse_quote};

use crate::diagnostics::{self, Diagnostics};

/// The attributes of a function and of the tests that are made from it.
#[derive(Default)]
pub(crate) struct Split {
    /// On both: conditions of compilation.
    pub(crate) conditions: Vec<Attribute>,
    /// Documentation and lint levels.
    pub(crate) of_function: Vec<Attribute>,
    /// All others, since their meaning is unknown here.
    pub(crate) of_tests: Vec<Attribute>,
}

impl Split {
    pub(crate) fn of<'a>(attributes: impl Iterator<Item = &'a Attribute>) -> Self {
        let mut split = Self::default();
        for attribute in attributes {
            match &attribute.meta {
                Meta::List(list) if list.path.is_ident("cfg_attr") => {
                    match split_conditional.parse2(list.tokens.clone()) {
                        Ok((of_function, of_tests)) => {
                            split.of_function.extend(of_function);
                            split.of_tests.extend(of_tests);
                        }
                        // Left to the compiler, which reports it.
                        Err(_) => split.of_tests.push(attribute.clone()),
                    }
                }
                meta if meta.path().is_ident("cfg") => split.conditions.push(attribute.clone()),
                meta if is_of_function(meta) => split.of_function.push(attribute.clone()),
                _ => split.of_tests.push(attribute.clone()),
            }
        }
        split
    }
}

/// `cfg_attr(condition, one, other)`, once for each side.
fn split_conditional(input: ParseStream<'_>) -> syn::Result<(Option<Attribute>, Option<Attribute>)> {
    let condition: Meta = input.parse()?;
    input.parse::<Token![,]>()?;
    let metas = Punctuated::<Meta, Token![,]>::parse_terminated(input)?;
    let (of_function, of_tests): (Vec<_>, Vec<_>) = metas.into_iter().partition(is_of_function);
    let side = |metas: Vec<Meta>| -> Option<Attribute> {
        (!metas.is_empty()).then(|| parse_quote!(#[cfg_attr(#condition, #(#metas),*)]))
    };
    Ok((side(of_function), side(of_tests)))
}

fn is_of_function(meta: &Meta) -> bool {
    ["doc", "allow", "expect", "warn", "deny", "forbid"].iter().any(|name| meta.path().is_ident(name))
}

/// Returns the part of the message that `#[should_panic]` expects, which may be empty.
pub(crate) fn should_panic(attributes: &[Attribute]) -> Option<String> {
    let meta = attributes
        .iter()
        .map(|attribute| &attribute.meta)
        .find(|meta| meta.path().is_ident("should_panic"))?;
    let expected = match meta {
        Meta::Path(_) => None,
        Meta::NameValue(expected) => text(&expected.value),
        Meta::List(list) => {
            let pairs =
                list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap_or_default();
            pairs.iter().find_map(|pair| match pair {
                Meta::NameValue(pair) if pair.path.is_ident("expected") => text(&pair.value),
                _ => None,
            })
        }
    };
    Some(expected.unwrap_or_default())
}

fn text(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

/// Reports attributes that make a test of the function themselves.
pub(crate) fn check(attributes: &[Attribute], diagnostics: &mut Diagnostics) {
    for attribute in attributes {
        let path = attribute.path();
        if is_test(attribute) {
            diagnostics.push(diagnostics::other_test_attribute(path));
        } else if is_ours(path) {
            diagnostics.push(diagnostics::repeated_attribute(path));
        }
    }
}

/// Recognises `#[test]` by any path, and attributes of other crates that run a function themselves,
/// such as `#[tokio::test]`.
pub(crate) fn is_test(attribute: &Attribute) -> bool {
    is_named(attribute.path(), "test") && !is_mark(attribute.path()) && !is_test_log(attribute)
}

/// Recognises the attribute with which other macros mark a test, `#[::core::prelude::v1::test]`.
/// They stand above this attribute and cannot know that it makes a test too.
pub(crate) fn is_mark(path: &Path) -> bool {
    let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    matches!(&segments[..], [root, prelude, _, test] if (root == "core" || root == "std") && prelude == "prelude" && test == "test")
}

/// Recognises `#[test_log::test]`, which marks no test. With an argument it names another
/// attribute.
fn is_test_log(attribute: &Attribute) -> bool {
    let segments = &attribute.path().segments;
    segments.len() == 2 && segments[0].ident == "test_log" && matches!(attribute.meta, Meta::Path(_))
}

pub(crate) fn is_ours(path: &Path) -> bool {
    is_named(path, "sandboxed_db")
}

pub(crate) fn is_rstest(path: &Path) -> bool {
    is_named(path, "rstest")
}

pub(crate) fn is_test_case(path: &Path) -> bool {
    is_named(path, "test_case") || is_named(path, "test_matrix")
}

/// Returns the number of arguments of `#[test_case(1, "a" ; "name")]`.
///
/// # Errors
/// For a case with `=> value`: the harness has judged the result before. `=> ignore` is fine.
pub(crate) fn case_arguments(attribute: &Attribute) -> syn::Result<usize> {
    attribute.parse_args_with(|input: ParseStream<'_>| {
        let mut count = 0;
        while !input.is_empty() && !input.peek(Token![=>]) && !input.peek(Token![;]) {
            input.parse::<Expr>()?;
            input.parse::<Option<Token![,]>>()?;
            count += 1;
        }
        if let Some(arrow) = input.parse::<Option<Token![=>]>>()? {
            let modifier = input.fork().parse::<Ident>();
            if !modifier.is_ok_and(|modifier| modifier == "ignore" || modifier == "inconclusive") {
                return Err(diagnostics::result_of_a_case(arrow));
            }
        }
        input.parse::<TokenStream>()?;
        Ok(count)
    })
}

fn is_named(path: &Path, name: &str) -> bool {
    path.segments.last().is_some_and(|last| last.ident == name)
}

/// Returns `true` if the attribute of a parameter belongs to rstest.
pub(crate) fn is_rstests(attribute: &Attribute) -> bool {
    const ALL: [&str; 13] = [
        "base_dir", "by_ref", "case", "context", "dirs", "exclude", "files", "from", "future", "mode",
        "notrace", "values", "with",
    ];
    ALL.iter().any(|name| attribute.path().is_ident(name))
}

/// Recognises `#[future]`, with which rstest passes a future.
pub(crate) fn is_future(attribute: &Attribute) -> bool {
    attribute.path().is_ident("future")
}

/// Recognises `#[future(awt)]`, whose future is awaited before the test.
pub(crate) fn is_awaited(attribute: &Attribute) -> bool {
    let arguments = || attribute.parse_args::<TokenStream>().map(|arguments| arguments.to_string());
    is_future(attribute) && arguments().is_ok_and(|arguments| arguments == "awt")
}

/// Recognises `#[awt]` above the function: all futures are awaited before the test.
pub(crate) fn is_awt(attribute: &Attribute) -> bool {
    attribute.path().is_ident("awt")
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn attributes(tokens: TokenStream) -> Vec<Attribute> {
        Attribute::parse_outer.parse2(tokens).unwrap()
    }

    #[test]
    fn should_panic_is_read_in_all_its_forms() {
        for (tokens, expected) in [
            (quote!(#[ignore]), None),
            (quote!(#[should_panic]), Some("")),
            (quote!(#[ignore] #[should_panic = "no"]), Some("no")),
            (quote!(#[should_panic(expected = "no")]), Some("no")),
        ] {
            assert_eq!(should_panic(&attributes(tokens)).as_deref(), expected);
        }
    }

    #[test]
    fn each_attribute_goes_where_it_has_an_effect() {
        let all = attributes(quote! {
            #[doc = "d"]
            #[cfg(unix)]
            #[cfg_attr(unix, ignore = "i", allow(unused), should_panic)]
            #[cfg_attr(unix, expect(unused))]
            #[serial]
        });
        let split = Split::of(all.iter());
        let text = |attributes: &[Attribute]| quote!(#(#attributes)*).to_string();
        assert_eq!(text(&split.conditions), quote!(#[cfg(unix)]).to_string());
        assert_eq!(
            text(&split.of_function),
            quote!(#[doc = "d"] #[cfg_attr(unix, allow(unused))] #[cfg_attr(unix, expect(unused))])
                .to_string()
        );
        assert_eq!(
            text(&split.of_tests),
            quote!(#[cfg_attr(unix, ignore = "i", should_panic)] #[serial]).to_string()
        );
    }

    #[test]
    fn marks_of_other_macros_are_no_second_test() {
        for (tokens, expected) in [
            (quote!(#[test]), true),
            (quote!(#[tokio::test]), true),
            (quote!(#[tokio::test(flavor = "multi_thread")]), true),
            (quote!(#[test_log::test(tokio::test)]), true),
            (quote!(#[test_log::test]), false),
            (quote!(#[::core::prelude::v1::test]), false),
            (quote!(#[std::prelude::rust_2024::test]), false),
            (quote!(#[should_panic(expected = "test")]), false),
        ] {
            assert_eq!(is_test(&attributes(tokens.clone())[0]), expected, "{tokens}");
        }
    }
}
