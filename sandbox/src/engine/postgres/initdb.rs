//! The command line of initdb(1): options that the user did not write yield to those that they did.

use super::config::{LOCALE, SUPERUSER};

/// Library that compares and classifies text in a database, as initdb's `--locale-provider` names
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocaleProvider {
    /// The C library. PostgreSQL before version 15 knows no other.
    Libc,
    /// ICU, from PostgreSQL 15 on, in builds that have it.
    /// [`Postgres::locale`](super::Postgres::locale) is then an ICU locale such as `de-DE`; the
    /// default is ICU's root locale.
    Icu,
    /// PostgreSQL itself, from version 17 on: `C`, `C.UTF-8` or, from version 18 on,
    /// `PG_UNICODE_FAST`.
    Builtin,
}

impl LocaleProvider {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Libc => "libc",
            Self::Icu => "icu",
            Self::Builtin => "builtin",
        }
    }
}

/// In MB. A small segment is made faster.
const DEFAULT_SEGMENT_SIZE: u32 = 1;

/// Prefixes of options that choose a locale, its provider or an encoding, in their shortest form:
/// getopt_long(3) accepts abbreviations.
const LOCALE_OPTIONS: [&str; 8] = ["--loc", "--no-l", "--lc-col", "--lc-ct", "--ic", "--bu", "--en", "-E"];

/// The arguments for a version, a locale and its provider, followed by the user's.
pub(super) fn arguments(
    major: u32,
    locale: &str,
    provider: Option<LocaleProvider>,
    by_user: &[String],
) -> Vec<String> {
    let given = |prefixes: &[&str]| by_user.iter().any(|arg| prefixes.iter().any(|of| arg.starts_with(of)));
    let mut arguments = vec!["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8"];
    let segment = DEFAULT_SEGMENT_SIZE.to_string();
    arguments.extend(["--wal-segsize", &segment, "--no-sync"]);
    if major >= 14 {
        arguments.push("--no-instructions");
    }
    // Checksums guard against broken disks; the layer has its own hashes.
    if major >= 18 && !given(&["--data-c", "--no-d", "-k"]) {
        arguments.push("--no-data-checksums");
    }
    // The built-in C.UTF-8 needs nothing of the host's C library, so it is the same everywhere.
    let provider = match provider {
        None if major >= 17 && locale == LOCALE && !given(&LOCALE_OPTIONS) => Some(LocaleProvider::Builtin),
        None | Some(LocaleProvider::Libc) if major < 15 => None,
        provider => provider,
    };
    if let Some(provider) = provider {
        arguments.extend(["--locale-provider", provider.name()]);
    }
    match provider {
        Some(LocaleProvider::Icu) => {
            let icu = if locale == LOCALE { "und" } else { locale };
            arguments.extend(["--icu-locale", icu, "--locale", LOCALE]);
        }
        Some(LocaleProvider::Builtin) => {
            arguments.extend(["--builtin-locale", locale, "--locale", LOCALE]);
        }
        _ => arguments.extend(["--locale", locale]),
    }
    arguments.into_iter().map(str::to_owned).chain(by_user.iter().cloned()).collect()
}

/// The size of a segment of the write-ahead log in MB, as the arguments of the user choose it.
pub(super) fn wal_segment_size(by_user: &[String]) -> u32 {
    let mut size = DEFAULT_SEGMENT_SIZE;
    for (number, arg) in by_user.iter().enumerate() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg.as_str(), by_user.get(number + 1).map(String::as_str)),
        };
        // getopt_long(3) accepts abbreviations; `--wal` alone may be `--waldir`.
        if name.starts_with("--wal-") && "--wal-segsize".starts_with(name) {
            // initdb reports a value that is no size.
            size = value.and_then(|value| value.parse().ok()).unwrap_or(size);
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments_of(major: u32, locale: &str, provider: Option<LocaleProvider>, by_user: &[&str]) -> String {
        let by_user: Vec<_> = by_user.iter().map(|&arg| arg.to_owned()).collect();
        arguments(major, locale, provider, &by_user).join(" ")
    }

    #[test]
    fn the_builtin_provider_yields_to_options_of_the_user() {
        let builtin = "--locale-provider builtin --builtin-locale C.UTF-8 --locale C.UTF-8";
        assert!(arguments_of(17, LOCALE, None, &[]).ends_with(builtin));
        assert!(arguments_of(17, LOCALE, None, &["--data-checksums"]).contains(builtin));
        for arg in ["--locale-provider=icu", "--no-locale", "--icu-locale=de", "-ELATIN1", "--locale=de_DE"] {
            let arguments = arguments_of(18, LOCALE, None, &[arg]);
            assert!(!arguments.contains("builtin") && arguments.ends_with(arg), "{arguments}");
        }
        assert!(!arguments_of(16, LOCALE, None, &[]).contains("provider"));
        assert!(arguments_of(18, LOCALE, None, &[]).contains("--no-data-checksums"));
        assert!(!arguments_of(18, LOCALE, None, &["--data-checksums"]).contains("--no-data"));
    }

    #[test]
    fn the_last_segment_size_counts() {
        let size =
            |args: &[&str]| wal_segment_size(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>());
        assert_eq!(size(&["--waldir=/x", "--data-checksums"]), 1);
        assert_eq!(size(&["--wal-segsize=4"]), 4);
        assert_eq!(size(&["--wal-segsize", "64", "-k"]), 64);
        assert_eq!(size(&["--wal-segsize=4", "--wal-seg=16"]), 16);
    }

    #[test]
    fn each_provider_gets_the_locale_in_its_option() {
        use LocaleProvider::{Builtin, Icu, Libc};
        assert!(arguments_of(18, "de-DE", Some(Icu), &[]).contains("--icu-locale de-DE --locale C.UTF-8"));
        assert!(arguments_of(15, LOCALE, Some(Icu), &[]).contains("--icu-locale und"));
        assert!(arguments_of(18, "C", Some(Builtin), &[]).contains("--builtin-locale C --locale C.UTF-8"));
        assert!(arguments_of(17, LOCALE, Some(Libc), &[]).contains("--locale-provider libc"));
        assert!(!arguments_of(14, LOCALE, Some(Libc), &[]).contains("provider"));
    }
}
