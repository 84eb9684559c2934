//! Sources of packages in the two forms of sources.list(5), rewritten for use outside of their
//! system: by HTTP only, and with copies of the keys that they name.

use std::io;
use std::path::{Path, PathBuf};

/// Copies the keys of the system that the sources are from.
pub(super) trait Keys {
    /// Copies the key at a path of that system, and returns the place of the copy.
    fn copy(&mut self, key: &Path) -> io::Result<PathBuf>;
}

/// Returns the usable sources of a file `*.list`.
pub(super) fn lines(text: &str, keys: &mut dyn Keys) -> io::Result<String> {
    let mut usable = String::new();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '[']))
        else {
            continue;
        };
        let rest = rest.trim_start();
        let (options, source) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']').unwrap_or((rest, "")),
            None => ("", rest),
        };
        if !source.split_whitespace().next().is_some_and(is_http) {
            continue;
        }
        let mut kept = Vec::new();
        for option in options.split_whitespace() {
            kept.push(match option.split_once('=') {
                Some((name, value)) if name.eq_ignore_ascii_case("signed-by") => {
                    format!("{name}={}", copied(value.split(','), keys)?.join(","))
                }
                _ => option.to_owned(),
            });
        }
        let options = if kept.is_empty() { String::new() } else { format!("[{}] ", kept.join(" ")) };
        usable.push_str(&format!("deb {options}{}\n", source.trim()));
    }
    Ok(usable)
}

/// Returns the usable sources of a file `*.sources`.
pub(super) fn stanzas(text: &str, keys: &mut dyn Keys) -> io::Result<String> {
    let mut usable = String::new();
    let is_comment = |line: &&str| line.starts_with('#');
    let lines: Vec<_> = text.lines().filter(|line| !is_comment(line)).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        if let Some(stanza) = stanza_of(stanza, keys)? {
            usable.push_str(&stanza);
            usable.push('\n');
        }
    }
    Ok(usable)
}

/// Returns a stanza for use elsewhere; `None` if it has no packages by HTTP.
fn stanza_of(lines: &[&str], keys: &mut dyn Keys) -> io::Result<Option<String>> {
    let mut fields: Vec<(&str, String)> = Vec::new();
    for line in lines {
        // A field goes on in lines that begin with a space.
        match (line.starts_with([' ', '\t']), line.split_once(':')) {
            (false, Some((name, value))) => fields.push((name, value.to_owned())),
            (true, _) => {
                if let Some((_, value)) = fields.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            }
            (false, None) => return Ok(None),
        }
    }
    let (mut has_packages, mut has_address) = (false, false);
    for (name, value) in &mut fields {
        match name.to_ascii_lowercase().as_str() {
            "types" => {
                has_packages = value.split_whitespace().any(|kind| kind == "deb");
                *value = " deb".to_owned();
            }
            "uris" => {
                let addresses: Vec<_> = value.split_whitespace().filter(|address| is_http(address)).collect();
                has_address = !addresses.is_empty();
                *value = format!(" {}", addresses.join(" "));
            }
            // Else it is a key itself, or the fingerprint of one.
            "signed-by" if value.trim().starts_with('/') => {
                let paths = value.split([' ', '\t', '\n', ',']).filter(|path| !path.is_empty());
                *value = format!(" {}", copied(paths, keys)?.join(" "));
            }
            _ => {}
        }
    }
    let lines = fields.iter().map(|(name, value)| format!("{name}:{value}\n"));
    Ok((has_packages && has_address).then(|| lines.collect()))
}

fn copied<'a>(values: impl Iterator<Item = &'a str>, keys: &mut dyn Keys) -> io::Result<Vec<String>> {
    let copy = |value: &str| match value.starts_with('/') {
        true => keys.copy(Path::new(value)).map(|copy| copy.to_string_lossy().into_owned()),
        false => Ok(value.to_owned()),
    };
    values.map(copy).collect()
}

/// Returns `true` for an address that apt-get itself asks: other kinds read files or run programs.
fn is_http(address: &str) -> bool {
    let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Copies;

    impl Keys for Copies {
        fn copy(&mut self, key: &Path) -> io::Result<PathBuf> {
            Ok(Path::new("/copies").join(key.file_name().unwrap()))
        }
    }

    #[test]
    fn lines_are_kept_if_they_have_packages_by_http() {
        let text = "# deb http://comment.example x main\ndeb http://a.example/debian trixie main contrib\n\
            deb-src http://a.example/debian trixie main\ndebug http://a.example x main\n\
            deb [arch=amd64 Signed-By=/keys/one.asc,/keys/two.gpg] https://b.example trixie main\n\
            \tdeb\t[ signed-by=ABCD ] HTTP://c.example ./\n\
            deb file:/srv/packages ./\ndeb ssh://d.example x main\ndeb mirror+file:/etc/apt/mirrors x main\n\
            deb [trusted=yes\ndeb cdrom:[Debian]/ x main\n";
        assert_eq!(
            lines(text, &mut Copies).unwrap(),
            "deb http://a.example/debian trixie main contrib\n\
             deb [arch=amd64 Signed-By=/copies/one.asc,/copies/two.gpg] https://b.example trixie main\n\
             deb [signed-by=ABCD] HTTP://c.example ./\n"
        );
    }

    #[test]
    fn stanzas_are_kept_if_they_have_packages_by_http() {
        let text = "Types: deb deb-src\n# a comment\nURIs: http://a.example/debian file:/srv\nSuites: trixie\n trixie-updates\n\
            Components: main\nSigned-By: /usr/share/keyrings/a.pgp\n\n\
            types: deb\nuris: https://b.example\nsuites: ./\nsigned-by:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ\n\n\n\
            Types: deb-src\nURIs: http://c.example\nSuites: x\n\nTypes: deb\nURIs: ssh://d.example\nSuites: x\n\n\
            nonsense\n";
        assert_eq!(
            stanzas(text, &mut Copies).unwrap(),
            "Types: deb\nURIs: http://a.example/debian\nSuites: trixie\n trixie-updates\nComponents: main\n\
             Signed-By: /copies/a.pgp\n\n\
             types: deb\nuris: https://b.example\nsuites: ./\nsigned-by:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ\n\n"
        );
    }
}
