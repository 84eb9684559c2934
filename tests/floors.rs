//! Checks that the library's modules use only those on their own floor or below, as the list of
//! floors in ARCHITECTURE.md has it, and that the parts of a divided module use each other in no
//! circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// Modules whose parts may form no circle.
const DIVIDED: [&str; 2] = ["launch", "engine"];

/// Upwards goes one call, since the dynamic linker enters the program in `sys` and goes on in the
/// launcher, and one public name.
const EXCEPTIONS: [(&str, &str); 2] = [("sys", "launch"), ("engine", "conformance")];

type Module = Vec<String>;

#[test]
fn modules_use_only_floors_below() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace");
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let mut files = BTreeMap::new();
    read(&root.join("sandbox/src"), &[], &mut files);
    let offences = check(&floors(&architecture), &files);
    assert!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
}

/// The modules of each floor, from the highest to the lowest: the block of code that is marked
/// `floors`.
fn floors(architecture: &str) -> Vec<Vec<String>> {
    let block = architecture.split("```floors\n").nth(1).expect("a block of code is marked `floors`");
    let lines = block.lines().take_while(|line| *line != "```");
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// Reads the sources below a directory, each by the path of its module.
fn read(directory: &Path, module: &[String], files: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(directory).expect("directories can be read") {
        let path = entry.expect("entries can be read").path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let child: Module = module.iter().cloned().chain([stem.clone()]).collect();
        if path.is_dir() {
            read(&path, &child, files);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let name = if ["mod", "lib"].contains(&stem.as_str()) { module.to_vec() } else { child };
            files.insert(name, fs::read_to_string(&path).expect("sources can be read"));
        }
    }
}

fn check(floors: &[Vec<String>], files: &BTreeMap<Module, String>) -> Vec<String> {
    let mut tree = Tree::default();
    for (module, text) in files {
        tree.add(module, &tokens(text));
    }
    let floor = |name: &str| floors.iter().position(|floor| floor.iter().any(|it| it == name));
    let mut offences = Vec::new();
    let tops: BTreeSet<_> = tree.uses.keys().filter_map(|module| module.first()).collect();
    offences
        .extend(tops.iter().filter(|top| floor(top).is_none()).map(|top| format!("{top} is on no floor")));
    let listed = floors.iter().flatten().filter(|name| !tops.contains(name));
    offences.extend(listed.map(|name| format!("{name} is on a floor and no module")));
    let mut circles: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    let targets: Vec<(&Module, Module)> = tree
        .uses
        .iter()
        .flat_map(|(user, paths)| paths.iter().map(move |path| (user, path)))
        .map(|(user, path)| (user, tree.resolve(path)))
        .collect();
    for (user, used) in &targets {
        let (Some(from), Some(to)) = (user.first(), used.first()) else { continue };
        if floor(to).is_some()
            && floor(to) < floor(from)
            && !EXCEPTIONS.contains(&(from.as_str(), to.as_str()))
        {
            offences.push(format!(
                "{} uses {}, which is on a higher floor",
                user.join("::"),
                used.join("::")
            ));
        }
        if let ([_, part, ..], [_, other, ..]) = (&user[..], &used[..])
            && from == to
            && part != other
            && let Some(divided) = DIVIDED.iter().find(|it| *it == from)
        {
            circles.entry(divided).or_default().entry(part).or_default().insert(other);
        }
    }
    for (divided, arrows) in &circles {
        offences
            .extend(circle(arrows).map(|parts| format!("a circle in {divided}: {}", parts.join(" uses "))));
    }
    offences.dedup();
    offences
}

/// A circle of parts that use each other, if there is one.
fn circle<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    fn visit<'a>(
        part: &'a str,
        arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> bool {
        if let Some(begin) = path.iter().position(|it| *it == part) {
            path.drain(..begin);
            path.push(part);
            return true;
        }
        path.push(part);
        let found = !done.contains(part)
            && arrows.get(part).into_iter().flatten().any(|next| visit(next, arrows, path, done));
        if !found {
            path.pop();
            done.insert(part);
        }
        found
    }
    let (mut path, mut done) = (Vec::new(), BTreeSet::new());
    arrows.keys().any(|part| visit(part, arrows, &mut path, &mut done)).then_some(path)
}

/// Every module, the paths that it uses, and the names that it exports again.
#[derive(Default)]
struct Tree {
    uses: BTreeMap<Module, BTreeSet<Vec<String>>>,
    exports: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
}

impl Tree {
    fn add(&mut self, module: &[String], tokens: &[String]) {
        let exports = self.exports.entry(module.to_vec()).or_default();
        let mut uses = BTreeSet::new();
        let mut at = 0;
        while at < tokens.len() {
            let before = |back: usize| at.checked_sub(back).map_or("", |at| tokens[at].as_str());
            let exported = before(1) == "use" && ["pub", ")"].contains(&before(2));
            let is_root = ["crate", "super", "self"].contains(&tokens[at].as_str());
            // A path in the words of `pub(in …)` uses nothing.
            let is_path =
                tokens.get(at + 1).is_some_and(|next| next == "::") && !["::", "in"].contains(&before(1));
            if exported || is_path && is_root {
                let mut paths = Vec::new();
                let end = tree_of_paths(tokens, at, &mut Vec::new(), &mut paths);
                for (path, name) in paths {
                    if let Some(path) = absolute(module, &path) {
                        if exported {
                            exports.insert(name, path.clone());
                        }
                        uses.insert(path);
                    }
                }
                at = end.max(at + 1);
            } else {
                at += 1;
            }
        }
        self.uses.insert(module.to_vec(), uses);
    }

    /// The module in which a path's item is written.
    fn resolve(&self, path: &[String]) -> Module {
        let (mut path, mut module) = (path.to_vec(), Vec::new());
        // As often as names are exported again; a circle of exports does not compile.
        for _ in 0..100 {
            let Some(name) = path.get(module.len()) else { break };
            let child = [&module[..], std::slice::from_ref(name)].concat();
            if self.uses.contains_key(&child) {
                module = child;
            } else if let Some(exported) = self.exports.get(&module).and_then(|exports| exports.get(name)) {
                path = [&exported[..], &path[module.len() + 1..]].concat();
                module.clear();
            } else {
                break;
            }
        }
        module
    }
}

/// Reads a path, or a tree of paths in braces, and returns where it ends. Each path has the name
/// that it is known by.
fn tree_of_paths(
    tokens: &[String],
    mut at: usize,
    prefix: &mut Vec<String>,
    paths: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let length = prefix.len();
    while let Some(token) = tokens.get(at) {
        if token == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|token| token != "}") {
                at = tree_of_paths(tokens, at, prefix, paths);
                at += usize::from(tokens.get(at).is_some_and(|token| token == ","));
            }
            prefix.truncate(length);
            return at + 1;
        }
        prefix.push(token.clone());
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
    }
    let mut name = prefix.last().cloned().unwrap_or_default();
    if tokens.get(at).is_some_and(|token| token == "as") {
        name = tokens.get(at + 1).cloned().unwrap_or_default();
        at += 2;
    }
    paths.push((prefix.clone(), name));
    prefix.truncate(length);
    at
}

/// A path from the crate's root; `None` if it leads to another crate.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => {
            let parent = module.split_last()?.1;
            match rest.first().map(String::as_str) {
                Some("super") => absolute(parent, rest),
                _ => Some([parent, rest].concat()),
            }
        }
        // A name that is exported again from a child module.
        _ => Some([module, path].concat()),
    }
}

/// Identifiers and punctuation, without comments, strings and all that is compiled for tests only.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    flatten(text.parse().expect("sources are Rust"), &mut found);
    found
}

fn flatten(tokens: TokenStream, found: &mut Vec<String>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(mark) if mark.as_char() == '#' && tokens.next_if(is_for_tests).is_some() => {
                // An item ends with its body, or without one.
                let ends = |token: &TokenTree| match token {
                    TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                    other => other.to_string() == ";",
                };
                while tokens.next().is_some_and(|token| !ends(&token)) {}
            }
            TokenTree::Punct(mark) if mark.as_char() == ':' && mark.spacing() == Spacing::Joint => {
                tokens.next();
                found.push("::".to_owned());
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                found.push("{".to_owned());
                flatten(group.stream(), found);
                found.push("}".to_owned());
            }
            TokenTree::Group(group) => {
                found.push("(".to_owned());
                flatten(group.stream(), found);
                found.push(")".to_owned());
            }
            TokenTree::Literal(_) => {}
            other => found.push(other.to_string()),
        }
    }
}

fn is_for_tests(attribute: &TokenTree) -> bool {
    attribute.to_string().replace(' ', "") == "[cfg(test)]"
}

#[test]
fn the_check_finds_upward_arrows_and_circles() {
    let floors = floors("## Floors\n```floors\ntop\nlaunch low\nsys\n```\n");
    let files = |sources: &[(&str, &str)]| -> BTreeMap<Module, String> {
        let all = [
            ("", "pub use top::Top as Crown;"),
            ("top", ""),
            ("launch", "pub use plan::Plan;"),
            ("launch::plan", ""),
            ("launch::host", ""),
            ("low", ""),
            ("sys", ""),
        ];
        let module = |name: &str| name.split("::").filter(|it| !it.is_empty()).map(str::to_owned).collect();
        all.iter().chain(sources).map(|(name, text)| (module(name), (*text).to_owned())).collect()
    };
    for fine in [
        ("top", "use crate::{low::A, launch::{self, Plan}};"),
        ("low", "use crate::launch::Plan;"),
        (
            "sys",
            "// use crate::top::Top;\nconst A: &str = \"crate::top::Top\"; fn f() { crate::launch::enter() }",
        ),
        ("sys", "const A: &str = r#\"\"crate::top\"#;\n#[cfg(test)]\nmod tests { use crate::top::Top; }"),
        ("launch::host", "use super::Plan; pub(in crate::launch) fn f() {}"),
    ] {
        assert_eq!(check(&floors, &files(&[fine])), [""; 0], "{fine:?}");
    }
    for wrong in [
        ("low", "use crate::top::Top;"),
        ("low", "use crate::Crown;"),
        ("sys", "use super::{\n    low::{A, B}};"),
        ("launch::host", "fn f() { super::super::top::g() }"),
        ("launch::plan", "use crate::launch::host::Host;\nuse std::fs;\n"),
        ("elsewhere", ""),
    ] {
        let circle = ("launch::host", "use super::Plan;");
        let circle = if wrong.0 == "launch::plan" { circle } else { ("low", "") };
        let sources = if wrong.0 == "low" { vec![wrong] } else { vec![circle, wrong] };
        assert_eq!(
            check(&floors, &files(&sources)).len(),
            1,
            "{wrong:?}: {:?}",
            check(&floors, &files(&sources))
        );
    }
    assert_eq!(
        check(
            &[vec!["no".to_owned(), "sys".to_owned()]],
            &BTreeMap::from([(vec!["sys".to_owned()], String::new())])
        )
        .len(),
        1
    );
}
