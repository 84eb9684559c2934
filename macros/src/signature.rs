//! The function below the attribute: the parts that the expansion needs, and the rules for tests.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{
    Attribute, FnArg, GenericParam, Generics, Ident, Pat, PatType, Path, Safety, Signature, Type,
    TypeReference, Visibility,
};

use crate::attributes;
use crate::diagnostics::{self, Diagnostics};

/// A function as written.
///
/// Its body stays tokens: nothing depends on it here, and unfinished code or syntax that the parser
/// does not know reaches the compiler unchanged.
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    pub(crate) body: TokenStream,
}

/// A parameter from a database: its type, and how the function takes it.
pub(crate) struct Parameter<'a> {
    /// Its name, by which an argument of the attribute refers to it; a pattern has none.
    pub(crate) name: Option<&'a Ident>,
    /// Without the `&`.
    pub(crate) ty: &'a Type,
    pub(crate) by_reference: bool,
}

/// A parameter, by the origin of its value.
pub(crate) enum Filled<'a> {
    FromDatabase(Parameter<'a>),
    FromCase(CaseParameter<'a>),
}

/// Another attribute that makes the tests from the expanded function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Generator {
    Rstest,
    /// The number of arguments of a case, which fill the first parameters.
    TestCase(usize),
}

/// A parameter that a case or fixture fills.
pub(crate) struct CaseParameter<'a> {
    pub(crate) name: &'a Ident,
    pub(crate) written: &'a PatType,
    /// The value is a future, and the function takes its output.
    pub(crate) awaited: bool,
}

impl Function {
    pub(crate) fn parse(item: TokenStream) -> syn::Result<Self> {
        syn::parse2(item)
    }

    /// Reads the parameters of the test. Reasons why the function cannot be one are added to
    /// `diagnostics`.
    pub(crate) fn check(&self, diagnostics: &mut Diagnostics) -> Vec<Filled<'_>> {
        attributes::check(&self.attributes, diagnostics);
        self.check_qualifiers(diagnostics);
        diagnostics.collect(check_generics(&self.signature.generics));
        self.parameters(diagnostics)
    }

    /// Returns `true` if another attribute makes the tests from the expanded function.
    pub(crate) fn has_generator(&self) -> bool {
        self.is_rstest() || self.attributes.iter().any(|attribute| attributes::is_test_case(attribute.path()))
    }

    /// Returns the names of test_case's attributes that are written without a path.
    pub(crate) fn case_attributes(&self) -> BTreeSet<&Ident> {
        let paths = self.attributes.iter().map(Attribute::path);
        paths.filter(|path| attributes::is_test_case(path)).filter_map(Path::get_ident).collect()
    }

    fn is_rstest(&self) -> bool {
        self.attributes.iter().any(|attribute| attributes::is_rstest(attribute.path()))
    }

    fn generator(&self, diagnostics: &mut Diagnostics) -> Option<Generator> {
        if self.is_rstest() {
            return Some(Generator::Rstest);
        }
        let cases = self.attributes.iter().filter(|attribute| attributes::is_test_case(attribute.path()));
        // The compiler reports a case of another length.
        let counts = cases.filter_map(|case| diagnostics.collect(attributes::case_arguments(case)));
        counts.collect::<Vec<_>>().first().copied().map(Generator::TestCase)
    }

    /// Returns the attributes of the test, without those that the harness replaces.
    pub(crate) fn outer_attributes(&self) -> impl Iterator<Item = &Attribute> {
        let is_rstest = self.is_rstest();
        self.attributes.iter().filter(move |attribute| {
            let of_rstest = is_rstest && attributes::is_awt(attribute);
            !of_rstest && !attributes::is_mark(attribute.path())
        })
    }

    fn check_qualifiers(&self, diagnostics: &mut Diagnostics) {
        let Signature { constness, safety, abi, .. } = &self.signature;
        if let Some(keyword) = constness {
            diagnostics.push(diagnostics::qualifier(keyword, "const"));
        }
        if let Safety::Unsafe(keyword) = safety {
            diagnostics.push(diagnostics::qualifier(keyword, "unsafe"));
        }
        if let Some(abi) = abi {
            diagnostics.push(diagnostics::qualifier(abi, "extern"));
        }
    }

    fn parameters(&self, diagnostics: &mut Diagnostics) -> Vec<Filled<'_>> {
        let Signature { ident, inputs, variadic, .. } = &self.signature;
        if let Some(variadic) = variadic {
            diagnostics.push(diagnostics::variadic(variadic));
        }
        let generator = self.generator(diagnostics);
        let is_rstest = generator == Some(Generator::Rstest);
        let awt = self.attributes.iter().find(|attribute| is_rstest && attributes::is_awt(attribute));
        let is_of_case = |index| matches!(generator, Some(Generator::TestCase(count)) if index < count);
        let filled = inputs.iter().enumerate().map(|(index, input)| match input {
            FnArg::Receiver(receiver) => Err(diagnostics::receiver(receiver)),
            FnArg::Typed(written) => match name(&written.pat) {
                Some(name) if is_of_case(index) => {
                    Ok(Filled::FromCase(CaseParameter { name, written, awaited: false }))
                }
                None if is_of_case(index) => Err(diagnostics::case_without_name(&written.pat)),
                Some(name) if is_rstest && is_filled_by_rstest(written) => {
                    let mut attributes = written.attrs.iter();
                    let awaited = attributes.any(|attribute| {
                        attributes::is_awaited(attribute) || awt.is_some() && attributes::is_future(attribute)
                    });
                    if awaited && self.signature.asyncness.is_none() {
                        return Err(diagnostics::awaited_without_async(&written.pat));
                    }
                    Ok(Filled::FromCase(CaseParameter { name, written, awaited }))
                }
                name => Parameter::of_type(name, &written.ty).map(Filled::FromDatabase),
            },
        });
        let all: Vec<_> = filled.filter_map(|filled| diagnostics.collect(filled)).collect();
        if !inputs.iter().any(|input| matches!(input, FnArg::Receiver(_)))
            && all.len() == inputs.len()
            && all.iter().all(|filled| matches!(filled, Filled::FromCase(_)))
        {
            diagnostics.push(diagnostics::no_parameter(ident));
        }
        all
    }

    /// Returns the signature of the inner function, without attributes that only rstest knows.
    pub(crate) fn inner_signature(&self) -> Signature {
        let mut signature = self.signature.clone();
        if self.is_rstest() {
            for input in &mut signature.inputs {
                if let FnArg::Typed(written) = input {
                    let mut attributes = written.attrs.iter();
                    let awt = self.attributes.iter().any(attributes::is_awt);
                    if attributes
                        .any(|one| attributes::is_future(one) && !awt && !attributes::is_awaited(one))
                    {
                        let ty = &written.ty;
                        written.ty = syn::parse_quote!(impl ::core::future::Future<Output = #ty>);
                    }
                    written.attrs.retain(|attribute| !attributes::is_rstests(attribute));
                }
            }
        }
        signature
    }

    /// Returns the function alone, for a function that cannot be a test, so that the compiler does
    /// not report its users, or its names, on top of the mistake.
    pub(crate) fn without_test(&self) -> TokenStream {
        let Self { attributes, visibility, signature, body } = self;
        // The body of a test rarely compiles in a `const fn`.
        let signature = Signature { constness: None, ..signature.clone() };
        let attributes = attributes.iter().filter(|attribute| {
            !attributes::is_test(attribute)
                && !attributes::is_mark(attribute.path())
                && !attributes::is_ours(attribute.path())
        });
        quote! {
            #(#attributes)*
            #[allow(unused)]
            #visibility #signature #body
        }
    }
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let mut words = input.fork().parse::<TokenStream>()?.into_iter();
        if !words.any(|word| matches!(word, TokenTree::Ident(word) if word == "fn")) {
            return Err(diagnostics::not_a_function(input.span()));
        }
        let signature = input.parse()?;
        let body = input.parse()?;
        Ok(Self { attributes, visibility, signature, body })
    }
}

impl<'a> Parameter<'a> {
    fn of_type(name: Option<&'a Ident>, written: &'a Type) -> syn::Result<Self> {
        let parameter = match ungrouped(written) {
            Type::Reference(TypeReference { mutability: Some(_), .. }) => {
                return Err(diagnostics::mutable_reference(written));
            }
            Type::Reference(TypeReference { lifetime: Some(lifetime), .. }) if lifetime.ident == "static" => {
                return Err(diagnostics::lifetime_parameter(lifetime));
            }
            Type::Reference(TypeReference { elem, .. }) => Self { name, ty: elem, by_reference: true },
            _ => Self { name, ty: written, by_reference: false },
        };
        match ungrouped(parameter.ty) {
            Type::ImplTrait(ty) => Err(diagnostics::impl_trait(ty)),
            _ => Ok(parameter),
        }
    }
}

fn check_generics(generics: &Generics) -> syn::Result<()> {
    match generics.params.first() {
        None => Ok(()),
        Some(GenericParam::Lifetime(_)) => Err(diagnostics::lifetime_parameter(generics)),
        Some(_) => Err(diagnostics::generic_parameter(generics)),
    }
}

/// Returns the type within parentheses, or within the invisible group of a `$ty:ty` in
/// `macro_rules!`.
fn ungrouped(mut ty: &Type) -> &Type {
    loop {
        ty = match ty {
            Type::Group(group) => &group.elem,
            Type::Paren(paren) => &paren.elem,
            _ => return ty,
        }
    }
}

fn name(pattern: &Pat) -> Option<&Ident> {
    match pattern {
        Pat::Ident(pattern) => Some(&pattern.ident),
        _ => None,
    }
}

/// Returns `true` if an attribute marks the parameter for rstest. A fixture that is found by its
/// name alone needs `#[from(name)]`, since it looks like a parameter from a database.
fn is_filled_by_rstest(written: &PatType) -> bool {
    written.attrs.iter().any(attributes::is_rstests)
}

#[cfg(test)]
mod tests {
    use quote::ToTokens as _;

    use super::*;

    fn tokens(item: &str) -> TokenStream {
        item.parse().unwrap()
    }

    fn mistakes(item: TokenStream) -> Vec<String> {
        let mut diagnostics = Diagnostics::default();
        if let Some(function) = diagnostics.collect(Function::parse(item)) {
            function.check(&mut diagnostics);
        }
        // Only the mistake; the rest of each message shows accepted functions.
        let first_line = |message: String| message.lines().next().unwrap().to_owned();
        diagnostics.messages().into_iter().map(first_line).collect()
    }

    fn parameter(item: TokenStream) -> (String, bool) {
        let function = Function::parse(item).unwrap();
        let mut diagnostics = Diagnostics::default();
        let parameters = function.check(&mut diagnostics);
        assert_eq!(diagnostics.messages(), [""; 0]);
        match &parameters[..] {
            [Filled::FromDatabase(parameter)] => {
                (parameter.ty.to_token_stream().to_string(), parameter.by_reference)
            }
            _ => panic!("{} parameters", parameters.len()),
        }
    }

    #[test]
    fn a_parameter_is_taken_by_value_or_by_reference() {
        for (item, ty, by_reference) in [
            ("fn t(db: Sandbox) {}", "Sandbox", false),
            ("async fn t(db: &Sandbox) {}", "Sandbox", true),
            ("fn t(db: &'_ Sandbox) {}", "Sandbox", true),
            ("fn t(db: (&Sandbox)) {}", "Sandbox", true),
            ("fn t(url: String) -> Result<(), E> {}", "String", false),
            ("fn t(#[allow(unused)] db: (A, B)) {}", "(A , B)", false),
        ] {
            assert_eq!(parameter(tokens(item)), (ty.to_owned(), by_reference), "{item}");
        }
    }

    #[test]
    fn a_parameter_can_be_any_pattern() {
        for pattern in ["_", "mut db", "ref db", "Sandbox { .. }", "(a, [b, ..])"] {
            let item = tokens(&format!("fn t({pattern}: Pool<Postgres, 5>) {{}}"));
            assert_eq!(parameter(item).0, "Pool < Postgres , 5 >");
        }
    }

    #[test]
    fn a_type_from_a_macro_is_read_through_its_group() {
        let ty = proc_macro2::Group::new(proc_macro2::Delimiter::None, quote!(&Sandbox));
        assert_eq!(parameter(quote!(fn t(db: #ty) {})), ("Sandbox".into(), true));
    }

    #[test]
    fn the_body_is_not_parsed() {
        let function = Function::parse(tokens("pub fn t(db: Sandbox) { db. let ~ }")).unwrap();
        assert_eq!(function.body.to_string(), tokens("{ db. let ~ }").to_string());
    }

    #[test]
    fn functions_that_cannot_be_tests_are_refused() {
        let receiver = "a test is a free function, it has no `self`";
        let generic = "a test cannot be generic: nothing chooses its types";
        let lifetime = "a test needs no named lifetime: the database lives as long as the test runs";
        let no_function = "`#[sandboxed_db]` goes on a function";
        for (item, mistake) in [
            ("fn t() {}", "a test with `#[sandboxed_db]` takes a parameter made from its database, and"),
            ("fn t(a: Sandbox, ...) {}", "a test cannot be variadic"),
            ("fn t(self) {}", receiver),
            ("fn t(&self, db: Sandbox) {}", receiver),
            (
                "fn t(db: &mut Sandbox) {}",
                "a parameter is taken by value or by `&`; to change it, take it by",
            ),
            ("fn t(db: impl Db) {}", "a parameter needs a named type, and `impl Trait` names none"),
            ("fn t(db: &impl Db) {}", "a parameter needs a named type, and `impl Trait` names none"),
            ("fn t<T>(db: T) {}", generic),
            ("fn t<const N: usize>(db: Db<N>) {}", generic),
            ("fn t<'a>(db: &'a Sandbox) {}", lifetime),
            ("fn t(db: &'static Sandbox) {}", lifetime),
            ("struct T { f: fn() }", no_function),
            ("const X: u8 = 1;", no_function),
            ("impl T { fn f() {} }", no_function),
        ] {
            let found = mistakes(tokens(item));
            assert!(found.len() == 1 && found[0].starts_with(mistake), "{item}: {found:?}");
        }
        assert_eq!(mistakes(tokens("fn t(a: Sandbox, b: String, c: u8) {}")), [""; 0]);
    }

    #[test]
    fn several_mistakes_are_collected() {
        let found = mistakes(tokens("#[test] #[sandboxed_db] const unsafe extern \"C\" fn t<T>() {}"));
        let beginnings = [
            "remove `#[test]`",
            "`#[sandboxed_db]` is given twice",
            "a test cannot be `const`",
            "a test cannot be `unsafe`",
            "a test cannot be `extern`",
            "a test cannot be generic",
            "a test with `#[sandboxed_db]` takes a parameter",
        ];
        assert_eq!(found.len(), beginnings.len(), "{found:#?}");
        for (mistake, beginning) in found.iter().zip(beginnings) {
            assert!(mistake.starts_with(beginning), "{mistake}");
        }
    }

    #[test]
    fn other_test_attributes_are_named_as_written() {
        for path in ["test", "tokio::test", "other::test"] {
            let found = mistakes(tokens(&format!("#[{path}] fn t(db: Sandbox) {{}}")));
            assert!(found[0].starts_with(&format!("remove `#[{path}]`: ")), "{found:?}");
        }
        for attribute in ["ignore", "should_panic(expected = \"test\")", "cfg(test)", "test_log"] {
            assert_eq!(mistakes(tokens(&format!("#[{attribute}] fn t(db: Sandbox) {{}}"))), [""; 0]);
        }
    }

    #[test]
    fn the_function_alone_keeps_other_attributes() {
        let item = "#[doc = \"d\"] #[tokio::test] #[sandboxed_db] pub const fn t(db: &mut Sandbox) { body }";
        let expected = tokens("#[doc = \"d\"] #[allow(unused)] pub fn t(db: &mut Sandbox) { body }");
        let function = Function::parse(tokens(item)).unwrap();
        assert_eq!(function.without_test().to_string(), expected.to_string());
    }
}
