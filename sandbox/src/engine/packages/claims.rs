//! Packages that apt-get believes to be installed: a status file of dpkg(1), which it reads instead
//! of the machine's.
//!
//! It names what every machine of the distribution has, and what servers need only by name. So a
//! tree does not depend on what else happens to be installed: it still works when that is removed,
//! or when another machine of the same distribution shares the store, and a server is fetched even
//! if it is installed. It costs some ten megabytes.

use std::path::Path;

/// Packages that servers need only by name: maintainer scripts, service management, programs for
/// replication, the sources of locales (C.UTF-8 is part of libc). Neither they nor their
/// dependencies are fetched, unless they are asked for.
const NOT_NEEDED: [&str; 20] = [
    "adduser", "debconf", "dpkg", "galera-4", "gawk", "init-system-helpers", "iproute2", "libdbi-perl",
    "locales", "lsb-base", "lsof", "passwd", "perl", "postgresql-client-common", "postgresql-common",
    "procps", "psmisc", "rsync", "socat", "ssl-cert",
];

/// Fields by which apt-get finds that a package is installed. Dependencies are left out, since they
/// are not claimed.
const KEPT: [&str; 5] = ["Package", "Architecture", "Multi-Arch", "Version", "Provides"];

/// Keeps apt-get from an upgrade of the package, as it likes to do with all packages of a source.
const HELD: &str = "Status: hold ok installed\n";

/// Returns the claims: the libc and the essential packages of the machine's status, the stanzas
/// `below`, and what is [`NOT_NEEDED`] and not among `wanted`.
pub(super) fn claims(status: &str, below: &str, wanted: &[String]) -> String {
    let of_every_machine =
        installed(status).filter(|stanza| name(stanza) == "libc6" || has(stanza, "Essential: yes"));
    let mut claims: String =
        of_every_machine.filter(|stanza| !lists(below, name(stanza))).map(claim).collect();
    claims.push_str(below);
    for package in NOT_NEEDED {
        if !lists(&claims, package) && !wanted.iter().any(|wanted| without_version(wanted) == package) {
            claims.push_str(&format!(
                "{HELD}Package: {package}\nArchitecture: all\nMulti-Arch: {}\n\
                 Version: 99999\n\n",
                // Only such a package satisfies a dependency on `perl:any`.
                if package == "perl" { "allowed" } else { "foreign" }
            ));
        }
    }
    claims
}

/// Returns the claims for those of the machine's packages that are in `names`.
pub(super) fn claims_of(status: &str, names: &[&str]) -> String {
    installed(status).filter(|stanza| names.contains(&name(stanza))).map(claim).collect()
}

/// Returns the claims for all installed packages but those that are asked for, in the status of an
/// image, which never changes. `server` is claimed whatever is asked for.
pub(super) fn claims_of_image(status: &str, wanted: &[String], server: &str) -> String {
    let is_wanted = |name: &str| name != server && wanted.iter().any(|it| without_version(it) == name);
    installed(status).filter(|stanza| !is_wanted(name(stanza))).map(claim).collect()
}

/// Returns the architecture of a system's C library, as packages name it.
pub(super) fn architecture(status: &str) -> Option<&str> {
    let libc = installed(status).find(|stanza| name(stanza) == "libc6")?;
    let architecture = libc.lines().find_map(|line| line.strip_prefix("Architecture: "))?;
    // It becomes a part of apt-get's settings, which may name programs.
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (!architecture.is_empty() && architecture.chars().all(is_plain)).then_some(architecture)
}

/// Returns the claim for a package by its control file.
pub(super) fn claim(control: &str) -> String {
    let is_kept = |line: &&str| line.split_once(':').is_some_and(|(field, _)| KEPT.contains(&field));
    let mut claim = HELD.to_owned();
    for line in control.lines().filter(is_kept) {
        claim.push_str(line);
        claim.push('\n');
    }
    claim.push('\n');
    claim
}

/// Returns `true` if a status has a package of that name.
pub(super) fn lists(status: &str, package: &str) -> bool {
    status.split("\n\n").any(|stanza| name(stanza) == package)
}

/// Returns the name of a package that is asked for as `name` or `name=version`.
pub(super) fn without_version(package: &str) -> &str {
    package.split('=').next().unwrap_or_default()
}

/// Returns the package that owns a file, in the output of `dpkg-query --search`.
pub(super) fn owner<'a>(output: &'a str, file: &Path) -> Option<&'a str> {
    let line = output.lines().find_map(|line| {
        let (owners, found) = line.split_once(": ")?;
        (Path::new(found) == file && !owners.starts_with("diversion ")).then_some(owners)
    })?;
    line.split([',', ':']).next()
}

fn installed(status: &str) -> impl Iterator<Item = &str> {
    let states = ["Status: install ok installed", "Status: hold ok installed"];
    status.split("\n\n").filter(move |stanza| states.iter().any(|state| has(stanza, state)))
}

fn has(stanza: &str, line: &str) -> bool {
    stanza.lines().any(|other| other == line)
}

fn name(stanza: &str) -> &str {
    stanza.lines().find_map(|line| line.strip_prefix("Package: ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: bash\nEssential: yes\nStatus: install ok installed\nVersion: 5.2\n\n\
        Package: curl\nStatus: install ok installed\nVersion: 7\n\n\
        Package: libc6\nStatus: install ok installed\nPriority: optional\nArchitecture: amd64\n\
        Multi-Arch: same\nVersion: 2.36-9\nProvides: libc6-2.36\nDepends: libgcc-s1\nConffiles:\n /etc/x 0\n\n\
        Package: libc6\nStatus: deinstall ok config-files\nArchitecture: i386\nVersion: 2.36-9\n";

    #[test]
    fn what_every_machine_has_is_claimed_without_dependencies() {
        let claims = claims(STATUS, "", &[]);
        assert!(
            claims.starts_with(
                "Status: hold ok installed\nPackage: bash\nVersion: 5.2\n\n\
                 Status: hold ok installed\nPackage: libc6\nArchitecture: amd64\nMulti-Arch: same\n\
                 Version: 2.36-9\nProvides: libc6-2.36\n\nStatus: hold ok installed\nPackage: adduser\n"
            ),
            "{claims}"
        );
        for other in ["curl", "Depends", "i386", "/etc/x"] {
            assert!(!claims.contains(other), "{claims}");
        }
        assert_eq!(claims.matches("Package: ").count(), 2 + NOT_NEEDED.len());
    }

    #[test]
    fn what_is_asked_for_is_not_claimed() {
        let below = claims_of(STATUS, &["curl", "none"]);
        assert_eq!(below, "Status: hold ok installed\nPackage: curl\nVersion: 7\n\n");
        let claims = claims(STATUS, &below, &["perl".to_owned(), "rsync=3.2".to_owned()]);
        assert!(lists(&claims, "curl") && lists(&claims, "socat"));
        assert!(!lists(&claims, "perl") && !lists(&claims, "rsync"));
    }

    #[test]
    fn what_an_image_has_is_claimed_but_for_what_is_asked_for() {
        let held = format!("{STATUS}\nPackage: db\nStatus: hold ok installed\nVersion: 1\n");
        let claims = claims_of_image(&held, &["curl=8".to_owned(), "db".to_owned()], "db");
        assert!(lists(&claims, "bash") && lists(&claims, "libc6") && lists(&claims, "db"), "{claims}");
        assert!(!lists(&claims, "curl") && !claims.contains("i386"), "{claims}");
        assert_eq!((architecture(&held), architecture("Package: x\n")), (Some("amd64"), None));
        let hostile = "amd64\"; APT::Update::Pre-Invoke { \"touch /tmp/x\"; }; Y \"";
        assert_eq!(
            architecture(&held.replace("Architecture: amd64", &format!("Architecture: {hostile}"))),
            None
        );
    }

    #[test]
    fn the_owner_of_a_file_is_found() {
        let file = Path::new("/usr/bin/server");
        let owner = |output| owner(output, file);
        assert_eq!(owner("server: /usr/bin/server\n"), Some("server"));
        assert_eq!(owner("server:amd64: /usr/bin/server\n"), Some("server"));
        let diverted = "diversion by x from: /usr/bin/server\nx, y: /usr/bin/server\n";
        assert_eq!(owner(diverted), Some("x"));
        assert_eq!(owner("server: /usr/bin/server-2\n"), None);
    }
}
