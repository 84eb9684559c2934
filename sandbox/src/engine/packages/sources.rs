//! Sources of packages in the two forms of sources.list(5), written anew for use outside of their
//! system: by HTTP only, with copies of the keys that they name.
//!
//! apt-get(8) reads quotes, escapes and control characters in other ways than these functions do,
//! and some sources run programs. So only words of plain characters and known options are taken
//! over, and a source that has anything else is left out.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Stores the keys of the system that the sources are from.
pub(super) trait Keys {
    /// Copies the key at a path of that system, and returns the path of the copy.
    fn copy(&mut self, key: &Path) -> io::Result<PathBuf>;

    /// Stores a key that a source contains, and returns its path.
    fn store(&mut self, key: &str) -> io::Result<PathBuf>;
}

/// The options that are kept, as in lines; fields of stanzas have the same names.
const OPTIONS: [&str; 4] = ["trusted", "by-hash", "check-valid-until", "valid-until-max"];

/// Returns the usable sources of a file `*.list`.
pub(super) fn lines(text: &str, keys: &mut dyn Keys) -> io::Result<String> {
    let mut usable = String::new();
    for line in text.lines() {
        // A comment may follow a source.
        let line = line.split('#').next().unwrap_or_default();
        if let Some(source) = line_of(line, keys)? {
            usable.push_str(&source);
        }
    }
    Ok(usable)
}

/// Returns a line for use elsewhere; `None` if it names no packages by HTTP, or is not plain.
fn line_of(line: &str, keys: &mut dyn Keys) -> io::Result<Option<String>> {
    let rest = line.trim_matches([' ', '\t']).strip_prefix("deb");
    let Some(rest) = rest.filter(|rest| rest.starts_with([' ', '\t', '['])) else { return Ok(None) };
    let rest = rest.trim_start_matches([' ', '\t']);
    let (options, source) = match rest.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some(parts) => parts,
            None => return Ok(None),
        },
        None => ("", rest),
    };
    let (Some(options), Some(source)) = (words(options), words(source)) else { return Ok(None) };
    if source.len() < 2 || !is_http(source[0]) {
        return Ok(None);
    }
    let mut kept = Vec::new();
    for option in options {
        let Some((name, value)) = option.split_once('=') else { return Ok(None) };
        match name.to_ascii_lowercase().as_str() {
            "signed-by" => match signed_by(&value.split(',').collect::<Vec<_>>(), keys)? {
                Some(keys) => kept.push(format!("signed-by={}", keys.join(","))),
                None => return Ok(None),
            },
            "arch" => kept.push(format!("arch={value}")),
            name if OPTIONS.contains(&name) => kept.push(format!("{name}={value}")),
            _ => {}
        }
    }
    let options = if kept.is_empty() { String::new() } else { format!("[{}] ", kept.join(" ")) };
    Ok(Some(format!("deb {options}{}\n", source.join(" "))))
}

/// Returns the usable sources of a file `*.sources`.
pub(super) fn stanzas(text: &str, keys: &mut dyn Keys) -> io::Result<String> {
    let mut usable = String::new();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim_matches([' ', '\t']).is_empty()) {
        if let Some(stanza) = stanza_of(stanza, keys)? {
            usable.push_str(&stanza);
            usable.push('\n');
        }
    }
    Ok(usable)
}

/// Returns a stanza for use elsewhere; `None` if it names no packages by HTTP, or is not plain.
fn stanza_of(lines: &[&str], keys: &mut dyn Keys) -> io::Result<Option<String>> {
    let Some(fields) = fields(lines) else { return Ok(None) };
    let field = |name: &str| fields.get(name).map_or("", String::as_str);
    let lists = [words(field("types")), words(field("uris")), words(field("suites"))];
    let [Some(types), Some(mut addresses), Some(suites)] = lists else { return Ok(None) };
    addresses.retain(|address| is_http(address));
    let off = ["no", "false", "without", "off", "disable", "0"];
    let is_off = off.contains(&field("enabled").trim().to_ascii_lowercase().as_str());
    if is_off || !types.contains(&"deb") || addresses.is_empty() || suites.is_empty() {
        return Ok(None);
    }
    let mut stanza = format!("Types: deb\nURIs: {}\nSuites: {}\n", addresses.join(" "), suites.join(" "));
    for name in ["components", "architectures"].iter().chain(&OPTIONS) {
        match words(field(name)) {
            Some(values) if values.is_empty() => {}
            Some(values) => stanza.push_str(&format!("{name}: {}\n", values.join(" "))),
            None => return Ok(None),
        }
    }
    let key = field("signed-by");
    let keys = if key.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
        Some(vec![text_of(&keys.store(&unfolded(key))?)])
    } else {
        signed_by(&key.split([' ', '\t', '\n', ',']).collect::<Vec<_>>(), keys)?
    };
    let Some(keys) = keys else { return Ok(None) };
    if !keys.is_empty() {
        stanza.push_str(&format!("signed-by: {}\n", keys.join(" ")));
    }
    Ok(Some(stanza))
}

/// Returns the fields by their names in lower case; `None` for lines that two readers could take
/// for different ones.
fn fields(lines: &[&str]) -> Option<BTreeMap<String, String>> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return None;
        }
        if line.starts_with([' ', '\t']) {
            // A field goes on in lines that begin with a space.
            let (_, value) = fields.last_mut()?;
            value.push('\n');
            value.push_str(line);
            continue;
        }
        let (name, value) = line.split_once(':')?;
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let name = name.to_ascii_lowercase();
        if !is_name || fields.iter().any(|(other, _)| *other == name) {
            return None;
        }
        fields.push((name, value.to_owned()));
    }
    Some(fields.into_iter().collect())
}

/// Returns the key that a field contains: each line without its margin, where a dot stands for an
/// empty line.
fn unfolded(value: &str) -> String {
    let line = |line: &str| match line.trim() {
        "." => "\n".to_owned(),
        line => format!("{line}\n"),
    };
    value.trim().lines().map(line).collect()
}

/// Returns copies of the keys at those paths, and fingerprints as they are; `None` for any other
/// word.
fn signed_by(values: &[&str], keys: &mut dyn Keys) -> io::Result<Option<Vec<String>>> {
    let mut copies = Vec::new();
    for value in values.iter().filter(|value| !value.is_empty()) {
        if value.starts_with('/') {
            copies.push(text_of(&keys.copy(Path::new(value))?));
        } else if value.trim_end_matches('!').chars().all(|c| c.is_ascii_hexdigit()) {
            copies.push((*value).to_owned());
        } else {
            return Ok(None);
        }
    }
    Ok(Some(copies))
}

fn text_of(path: &Path) -> String {
    path.display().to_string()
}

/// Returns the words of a text; `None` if one has characters that apt-get may read differently.
fn words(text: &str) -> Option<Vec<&str>> {
    let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "-._~:/+@=,!".contains(c));
    let words: Vec<_> = text.split([' ', '\t', '\n']).filter(|word| !word.is_empty()).collect();
    words.iter().all(is_word).then_some(words)
}

/// Returns `true` for an address that apt-get itself asks: other kinds read files or run programs.
fn is_http(address: &str) -> bool {
    let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Copies(Vec<String>);

    impl Keys for Copies {
        fn copy(&mut self, key: &Path) -> io::Result<PathBuf> {
            Ok(Path::new("/copies").join(key.file_name().unwrap()))
        }

        fn store(&mut self, key: &str) -> io::Result<PathBuf> {
            self.0.push(key.to_owned());
            Ok("/copies/stored.asc".into())
        }
    }

    #[test]
    fn lines_are_kept_if_they_have_packages_by_http() {
        let text = "# deb http://comment.example x main\ndeb http://a.example/debian trixie main contrib # ours\n\
            deb-src http://a.example/debian trixie main\ndebug http://a.example x main\n\
            deb [arch=amd64 Signed-By=/keys/one.asc,/keys/two.gpg lang=de] https://b.example trixie main\n\
            \tdeb\t[ signed-by=ABCD trusted=yes] HTTP://c.example ./\n\
            deb file:/srv/packages ./\ndeb ssh://d.example x main\ndeb mirror+file:/etc/apt/mirrors x main\n\
            deb [trusted=yes\ndeb cdrom:[Debian]/ x main\n";
        assert_eq!(
            lines(text, &mut Copies(Vec::new())).unwrap(),
            "deb http://a.example/debian trixie main contrib\n\
             deb [arch=amd64 signed-by=/copies/one.asc,/copies/two.gpg] https://b.example trixie main\n\
             deb [signed-by=ABCD trusted=yes] HTTP://c.example ./\n"
        );
    }

    #[test]
    fn lines_that_have_two_meanings_are_left_out() {
        for line in [
            "deb [a=\"b] http://a.example \" trusted=yes] file:/srv x main",
            "deb [signed-by=\"/keys/a\"] http://a.example x main",
            "deb [sign%65d-by=/keys/a] http://a.example x main",
            "deb [signed-by=keys/a] http://a.example x main",
            "deb [[trusted=yes] http://a.example x main",
            "deb http://a.example x ma%69n",
            "deb http://a.example x main\u{b}file:/srv",
            "deb http://a.example",
        ] {
            assert_eq!(lines(line, &mut Copies(Vec::new())).unwrap(), "", "{line}");
        }
    }

    #[test]
    fn stanzas_are_kept_if_they_have_packages_by_http() {
        let text = "Types: deb deb-src\n# a comment\nURIs: http://a.example/debian file:/srv\nSuites: trixie\n trixie-updates\n\
            Components: main\nSigned-By: /usr/share/keyrings/a.pgp, ABCD\n\n\
            types: deb\nuris: https://b.example\nsuites: ./\nsigned-by:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ\n\n\n\
            Types: deb-src\nURIs: http://c.example\nSuites: x\n\nTypes: deb\nURIs: ssh://d.example\nSuites: x\n\n\
            Enabled: no\nTypes: deb\nURIs: http://e.example\nSuites: x\n\nnonsense\n";
        let mut keys = Copies(Vec::new());
        assert_eq!(
            stanzas(text, &mut keys).unwrap(),
            "Types: deb\nURIs: http://a.example/debian\nSuites: trixie trixie-updates\ncomponents: main\n\
             signed-by: /copies/a.pgp ABCD\n\n\
             Types: deb\nURIs: https://b.example\nSuites: ./\nsigned-by: /copies/stored.asc\n\n"
        );
        assert_eq!(keys.0, ["-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ\n"]);
    }

    #[test]
    fn stanzas_that_have_two_meanings_are_left_out() {
        let plain = "Types: deb\nSuites: x\nURIs: http://a.example";
        assert!(!stanzas(plain, &mut Copies(Vec::new())).unwrap().is_empty());
        for more in [
            "\nURIs : ssh://b.example", "\nuris: file:/srv", "\n\u{b}file:///srv y: z",
            "\nSigned-By : /keys/a", "\nSigned-By: keys/a", "\nComponents: \"main\"",
            " http://b.example/%20",
        ] {
            assert_eq!(stanzas(&format!("{plain}{more}"), &mut Copies(Vec::new())).unwrap(), "", "{more}");
        }
    }
}
