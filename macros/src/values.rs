//! The values of arguments: how each kind is read, and the messages for malformed ones.

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::{ParseBuffer, ParseStream};
use syn::{Ident, Lit, LitStr, Path, Token, bracketed, parenthesized, token};

use crate::diagnostics::{self, Diagnostics};

/// A setting of the server, with its value as text.
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// An argument whose name is read and whose value follows.
pub(crate) struct Argument {
    /// An example, for messages.
    pub(crate) example: &'static str,
    pub(crate) written: Ident,
}

impl Argument {
    pub(crate) fn malformed(&self, input: ParseStream<'_>, expected: &str) -> syn::Error {
        // A missing value has no token, so the message points at the name.
        let missing = input.is_empty() || input.peek(Token![,]);
        let at = if missing { self.written.span() } else { input.span() };
        diagnostics::malformed_argument(at, expected, self.example)
    }

    pub(crate) fn equals(&self, input: ParseStream<'_>) -> syn::Result<()> {
        match input.parse::<Option<Token![=]>>()? {
            Some(_) => Ok(()),
            None => Err(self.malformed(input, "`=` and a value")),
        }
    }

    /// Reads a path in the file system.
    pub(crate) fn path(&self, input: ParseStream<'_>) -> syn::Result<LitStr> {
        if !input.peek(LitStr) {
            return Err(self.malformed(input, "a path as a string"));
        }
        let path: LitStr = input.parse()?;
        if path.value().is_empty() { Err(diagnostics::empty_path(path.span())) } else { Ok(path) }
    }

    /// Reads a path, or several in brackets.
    pub(crate) fn paths(
        &self,
        input: ParseStream<'_>,
        diagnostics: &mut Diagnostics,
    ) -> syn::Result<Vec<LitStr>> {
        self.several(input, diagnostics, |input| self.path(input)).map(|(paths, _)| paths)
    }

    /// Reads one value, or several in brackets and the place of these.
    pub(crate) fn several<T>(
        &self,
        input: ParseStream<'_>,
        diagnostics: &mut Diagnostics,
        read: impl Fn(ParseStream<'_>) -> syn::Result<T>,
    ) -> syn::Result<(Vec<T>, Option<Span>)> {
        if !input.peek(token::Bracket) {
            return Ok((vec![read(input)?], None));
        }
        let list;
        let brackets = bracketed!(list in input).span.join();
        if list.is_empty() {
            return Err(diagnostics::empty_list(brackets));
        }
        let mut values = Vec::new();
        comma_separated(&list, diagnostics, |input, _| {
            values.push(read(input)?);
            Ok(())
        });
        Ok((values, Some(brackets)))
    }

    /// Reads a version of a server, by as many of its numbers as count.
    pub(crate) fn version(&self, input: ParseStream<'_>) -> syn::Result<LitStr> {
        let expected = || self.malformed(input, "a version as a string");
        let version = match input.fork().parse::<Lit>().map_err(|_| expected())? {
            Lit::Str(version) => version,
            Lit::Int(number) if number.suffix().is_empty() => {
                LitStr::new(number.base10_digits(), number.span())
            }
            _ => return Err(expected()),
        };
        let text = version.value();
        let is_one = text.starts_with(|c: char| c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
        if !is_one {
            return Err(expected());
        }
        input.parse::<Lit>()?;
        Ok(version)
    }

    pub(crate) fn settings(
        &self,
        input: ParseStream<'_>,
        diagnostics: &mut Diagnostics,
    ) -> syn::Result<Vec<Setting>> {
        let list = self.parentheses(input)?;
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

    /// Reads a time with its unit, or whole seconds.
    pub(crate) fn duration(&self, input: ParseStream<'_>) -> syn::Result<Duration> {
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
        if duration.is_zero() { Err(diagnostics::zero_duration(at)) } else { Ok(duration) }
    }

    /// Reads the contents of the parentheses that follow, with or without a trailing comma.
    pub(crate) fn list<T>(
        &self,
        input: ParseStream<'_>,
        read: impl FnOnce(ParseStream<'_>) -> syn::Result<T>,
    ) -> syn::Result<T> {
        let list = self.parentheses(input)?;
        let read = read(&list).and_then(|read| {
            list.parse::<Option<Token![,]>>()?;
            if list.is_empty() { Ok(read) } else { Err(self.malformed(&list, "no further value")) }
        });
        // The rest would be reported as a further mistake.
        list.parse::<TokenStream>()?;
        read
    }

    /// Returns the contents of parentheses, before which a `=` may stand.
    fn parentheses<'a>(&self, input: ParseStream<'a>) -> syn::Result<ParseBuffer<'a>> {
        input.parse::<Option<Token![=]>>()?;
        if !input.peek(token::Paren) {
            return Err(self.malformed(input, "a list in parentheses"));
        }
        let list;
        parenthesized!(list in input);
        Ok(list)
    }

    pub(crate) fn comma(&self, list: ParseStream<'_>) -> syn::Result<()> {
        list.parse::<Token![,]>().map(drop).map_err(|_| self.malformed(list, "a comma and a further value"))
    }

    pub(crate) fn text(&self, input: ParseStream<'_>, expected: &str) -> syn::Result<LitStr> {
        input.parse().map_err(|_| self.malformed(input, expected))
    }

    /// Reads the path of a Rust item.
    pub(crate) fn rust_path(&self, input: ParseStream<'_>, expected: &str) -> syn::Result<Path> {
        if !input.peek(Ident::peek_any) && !input.peek(Token![::]) {
            return Err(self.malformed(input, expected));
        }
        input.parse()
    }

    /// Reads a path in Rust, bare or in a string.
    pub(crate) fn module(&self, input: ParseStream<'_>) -> syn::Result<Path> {
        if input.peek(LitStr) {
            let quoted: LitStr = input.parse()?;
            return quoted.parse_with(Path::parse_mod_style).map_err(|_| {
                diagnostics::malformed_argument(quoted.span(), "the path of a crate", self.example)
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

    /// Reads `max_connections`, `auto_explain.log_min_duration` or either in quotes.
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

/// Parses a whole number followed by `ms`, `s`, `m`, `h` or `d`.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => number,
        "s" => number.checked_mul(1_000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        "d" => number.checked_mul(86_400_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(milliseconds))
}

/// Reads `item, item, …` to the end. After a mistake it continues behind the next comma.
pub(crate) fn comma_separated(
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
        // Never fails: a tree is a group or a single token.
        while !input.is_empty() && !input.peek(Token![,]) && input.parse::<TokenTree>().is_ok() {}
        let _ = input.parse::<Option<Token![,]>>();
    }
}

#[cfg(test)]
mod tests {
    use quote::{ToTokens as _, quote};

    use super::*;
    use crate::args::tests::{only_mistake, read};

    fn settings(tokens: TokenStream) -> Vec<(String, String)> {
        read(tokens).settings.into_iter().map(|setting| (setting.name, setting.value)).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
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
        let age = |tokens| read(tokens).max_age.unwrap();
        assert_eq!(age(quote!(max_age = "12h")), Duration::from_secs(12 * 60 * 60));
        assert_eq!(age(quote!(max_age = "2d")), Duration::from_secs(2 * 24 * 60 * 60));
    }

    #[test]
    fn durations_that_cannot_be_read_are_refused() {
        for text in [
            "", "30", "s", "-1s", "1.5s", "30 s", "30S", "1w", "99999999999999999999s",
            "18446744073709551615m",
        ] {
            assert_eq!(duration(text), None, "{text:?}");
            let mistake = only_mistake(quote!(start_timeout = #text));
            assert!(mistake.starts_with("expected a duration"), "{mistake}");
        }
        assert!(only_mistake(quote!(start_timeout = -1)).starts_with("expected a duration"));
        assert!(only_mistake(quote!(start_timeout = 1.5)).starts_with("expected a duration"));
        assert!(only_mistake(quote!(start_timeout = 0)).contains("duration of zero"));
        assert!(only_mistake(quote!(start_timeout = "0ms")).contains("duration of zero"));
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
}
