//! Checks what no compiler checks in the documentation: links between files, anchors, and the parts
//! that stand in two places.
//!
//! Paths within Rust are checked by rustdoc, and examples by the doctests of
//! `sandboxed-db-examples`.
//!
//! ```sh
//! cargo test -p sandboxed-db-tests --test documentation
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sandboxed_db_tests::{repository, repository_files};

/// The address at which the documentation of the newest version is published.
const PUBLISHED: &str = "https://docs.rs/sandboxed-db/latest/sandboxed_db/";

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn with_extension(extension: &str) -> Vec<PathBuf> {
    repository_files(|file| file.extension().is_some_and(|it| it == extension))
}

/// The lines outside blocks of code, each with its number.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().zip(1..).filter_map(move |(line, number)| {
        let fence = line.trim_start().starts_with("```");
        is_code ^= fence;
        (!is_code && !fence).then_some((number, line))
    })
}

/// The targets of the links in a text, outside code.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Code between backquotes has no links, but a link's text may have code.
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let is_code = line[..at].matches('`').count() % 2 == 1;
            if let (false, Some(end)) = (is_code, rest.find(')')) {
                let target = rest[..end].trim_end_matches('(');
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// The anchors of the headings in a text, as GitHub and rustdoc make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter_map(|(_, line)| line.strip_prefix('#'));
    let headings = headings.map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.chars().filter(|it| it.is_alphanumeric() || [' ', '-', '_'].contains(it));
            kept.map(|it| if it == ' ' { '-' } else { it.to_ascii_lowercase() }).collect()
        })
        .collect()
}

/// Returns what is wrong with a link, if anything is.
fn check(file: &Path, target: &str) -> Option<String> {
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let guide = repository().join("sandbox/src/guide");
    let linked = if let Some(page) = path.strip_prefix(PUBLISHED) {
        let Some(chapter) = page.strip_prefix("guide/").and_then(|page| page.strip_suffix("index.html"))
        else {
            return Some("is not a chapter of the guide".to_owned());
        };
        match chapter.trim_end_matches('/') {
            "" => guide.join("mod.rs"),
            chapter => guide.join(format!("{chapter}.md")),
        }
    } else if path.starts_with("https://") {
        return None;
    } else if path.contains("::") {
        match (path.strip_prefix("crate::guide::"), anchor) {
            (Some(chapter), Some(_)) => guide.join(format!("{chapter}.md")),
            // rustdoc checks the rest of it.
            _ => return None,
        }
    } else if path.is_empty() {
        file.to_owned()
    } else {
        file.parent().expect("files are in directories").join(path)
    };
    if !linked.exists() {
        return Some(format!("leads to {}, which does not exist", linked.display()));
    }
    let anchor = anchor.filter(|_| linked.is_file())?;
    (!anchors(&read(&linked)).contains(anchor))
        .then(|| format!("has an anchor that no heading has: {anchor}"))
}

#[test]
fn links_between_files_lead_somewhere() {
    let files = with_extension("md");
    assert!(files.len() > 20, "only {} files were found", files.len());
    let mut offences = Vec::new();
    for file in &files {
        for (line, target) in targets(&read(file)) {
            if let Some(offence) = check(file, &target) {
                offences.push(format!("{}:{line}: {target} {offence}", file.display()));
            }
        }
    }
    assert!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
}

/// A registry shows a package's page without the files beside it.
#[test]
fn pages_of_packages_have_absolute_links_only() {
    for page in ["sandbox/README.md", "fixtures/README.md"] {
        for (line, target) in targets(&read(&repository().join(page))) {
            assert!(target.starts_with("https://"), "{page}:{line}: {target} is relative");
        }
    }
}

/// rustdoc shows a comment without the files beside its source.
#[test]
fn comments_have_no_links_to_files() {
    for file in with_extension("rs").iter().filter(|file| !file.ends_with("tests/documentation.rs")) {
        let text = read(file);
        let comments = text
            .lines()
            .map(|line| line.trim_start())
            .filter(|line| ["//! ", "/// "].iter().any(|marker| line.starts_with(marker)));
        for (_, target) in comments.flat_map(targets) {
            let path = target.split('#').next().unwrap_or_default();
            let is_file = path.contains('/') && !path.contains("://") || path.ends_with(".md");
            assert!(!is_file, "{}: {target} is a file", file.display());
        }
    }
}

#[test]
fn the_readme_begins_as_the_page_of_the_package() {
    let (readme, page) =
        (read(&repository().join("README.md")), read(&repository().join("sandbox/README.md")));
    let (shared, _) = page.split_once("## Documentation").expect("the page has that heading");
    assert!(readme.starts_with(shared), "README.md does not begin with sandbox/README.md");
    assert!(!readme.contains("\n# fn"), "README.md has a line that only rustdoc understands");
}

/// The doctests of the README run in the package of the examples.
#[test]
fn files_in_the_readme_are_those_of_the_examples() {
    let readme = read(&repository().join("README.md"));
    let shown = |name: &str| -> String {
        let after = readme.split_once(&format!("`{name}`:\n\n```")).expect("it is shown").1;
        after.lines().skip(1).take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect()
    };
    let name = "migrations/20240101000000_customers.sql";
    assert_eq!(shown(name), read(&repository().join("examples").join(name)));
    let name = "orders.sql";
    let chapter = read(&repository().join("sandbox/src/guide/getting_started.md"));
    assert!(chapter.contains(&read(&repository().join("examples").join(name))), "{name} differs");
}

#[test]
fn the_readme_shows_each_recording() {
    let readme = read(&repository().join("README.md"));
    let recordings =
        with_extension("svg").into_iter().filter(|file| file.starts_with(repository().join("examples")));
    for recording in recordings {
        let path = recording.strip_prefix(repository()).unwrap().display().to_string();
        assert!(readme.contains(&format!("]({path})")), "{path}");
    }
}

#[test]
fn the_command_of_the_chapter_on_sqlx_rewrites_tests() {
    let chapter = read(&repository().join("sandbox/src/guide/from_sqlx_test.md"));
    let command = chapter.split("```sh\n").find(|code| code.starts_with("perl")).expect("it has a command");
    let directory = tempfile::tempdir().unwrap();
    let tests = directory.path().join("tests");
    fs::create_dir(&tests).unwrap();
    let before = concat!(
        "#[sqlx::test]\n#[sqlx::test(fixtures(\"a\", \"b.sql\"))]\n#[sqlx::test(fixtures(\"./fixtures/c.sql\"))]\n",
        "#[sqlx::test(\n    migrations = false,\n    fixtures(\"d\",),\n)]\n#[test]\n",
    );
    fs::write(tests.join("a.rs"), before).unwrap();
    let sources = directory.path().join("src");
    fs::create_dir(&sources).unwrap();
    fs::write(sources.join("lib.rs"), "    #[sqlx::test(fixtures(\"a\"))]\n").unwrap();
    let command = command.split("cargo test").next().unwrap();
    let status = Command::new("sh").args(["-c", command]).current_dir(directory.path()).status().unwrap();
    assert!(status.success(), "{status}");
    let name = "#[sandboxed_db::sandboxed_db";
    let after = [
        format!("{name}]\n{name}(seed = [\"tests/fixtures/a.sql\", \"tests/fixtures/b.sql\"])]\n"),
        format!("{name}(seed = [\"tests/fixtures/c.sql\"])]\n"),
        format!("{name}(\n    migrations = none,\n    seed = [\"tests/fixtures/d.sql\"],\n)]\n#[test]\n"),
    ];
    assert_eq!(read(&tests.join("a.rs")), after.concat());
    assert_eq!(read(&sources.join("lib.rs")), format!("    {name}(seed = [\"src/fixtures/a.sql\"])]\n"));
}

#[test]
fn each_chapter_is_a_page_and_is_tested() {
    let guide = repository().join("sandbox/src/guide");
    let files = with_extension("md").into_iter().filter(|file| file.starts_with(&guide));
    let (guide, tested) =
        (read(&repository().join("sandbox/src/guide/mod.rs")), read(&repository().join("examples/lib.rs")));
    for file in files {
        let chapter = file.file_stem().unwrap_or_default().to_string_lossy();
        for (text, part) in [
            (&guide, format!("pub mod {chapter} {{}}")),
            (&guide, format!("[`{chapter}`]")),
            (&tested, format!("/guide/{chapter}.md\"")),
        ] {
            assert!(text.contains(&part), "{chapter}: `{part}` is missing");
        }
    }
}

#[test]
fn the_page_of_the_library_names_all_features() {
    let manifest = read(&repository().join("sandbox/Cargo.toml"));
    let features = manifest.split_once("\n[features]\n").expect("it has features").1;
    let features = features.split("\n[").next().unwrap_or_default().lines();
    let page = read(&repository().join("sandbox/src/lib.rs"));
    let rows: String = page.lines().filter(|line| line.starts_with("//! | `")).collect();
    for feature in features.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name) {
        let is_named = feature == "default" || rows.contains(&format!("`{feature}`"));
        assert!(is_named, "`{feature}` is missing in sandbox/src/lib.rs");
    }
}

#[test]
fn the_check_finds_each_kind_of_dead_link() {
    let file = repository().join("README.md");
    for dead in [
        "no/such/file.md",
        "ARCHITECTURE.md#no-such-heading",
        "#no-such-heading",
        "crate::guide::ci#no-such-heading",
        "https://docs.rs/sandboxed-db/latest/sandboxed_db/guide/none/index.html",
        "https://docs.rs/sandboxed-db/latest/sandboxed_db/none/index.html",
    ] {
        assert!(check(&file, dead).is_some(), "{dead}");
    }
    for fine in
        ["ARCHITECTURE.md#floors", "crate::guide::ci#github", "https://example.org/", "crate::Sandbox"]
    {
        assert_eq!(check(&file, fine), None, "{fine}");
    }
    assert_eq!(targets("a [`b`](c) and `[d](e)`\n```\n[f](g)\n```"), [(1, "c".to_owned())]);
}
