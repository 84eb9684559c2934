//! Hints of the library in terms of requests.

use serde_json::{Value, json};

use crate::failure::{Call, kebab, replace_calls};

/// Replaces each method of the library in backticks by the key of a request, and its arguments by
/// the value.
pub(super) fn with_keys(hint: &str) -> String {
    replace_calls(hint, |code| key(&Call::parse(code)))
}

/// Returns the key for a call: `{"prepare": ["goose","up"]}` for `run("goose", "up")`. `None` if
/// there is none.
fn key(Call { method, arguments }: &Call<'_>) -> Option<String> {
    let tool = |name: &str| kebab(name.trim_start_matches("MigrationTool::"));
    let (key, value) = match (*method, &**arguments) {
        ("run" | "run_tcp", []) => return Some("prepare".to_owned()),
        ("setting" | "settings", []) => return Some("settings".to_owned()),
        ("package" | "packages", []) => return Some("packages".to_owned()),
        ("initdb_arg", []) => return Some("initdb_args".to_owned()),
        (
            "migrations" | "migrations_of" | "seed" | "depends_on" | "version" | "database" | "start_timeout"
            | "build_timeout" | "disk" | "memory" | "pids" | "keep",
            [],
        ) => return Some((*method).to_owned()),
        ("run", words) => ("prepare", json!(words)),
        ("run_tcp", words) => return Some(json!({ "prepare": words, "tcp": true }).to_string()),
        ("setting", [name, value]) => ("settings", json!({ name: value })),
        ("settings", [pair]) => {
            let (name, value) = pair.split_once('=')?;
            ("settings", json!({ name.trim(): value.trim() }))
        }
        ("package", [name]) => ("packages", json!([name])),
        ("initdb_arg", [argument]) => ("initdb_args", json!([argument])),
        ("migrations_of", [name, directory]) => ("migrations_of", json!([tool(name), directory])),
        ("depends_on", paths) => ("depends_on", json!(paths)),
        ("migrations" | "seed" | "version" | "database", [one]) => (*method, Value::from(one.as_str())),
        _ => return None,
    };
    Some(json!({ key: value }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_keys() {
        for (hint, expected) in [
            ("raise `build_timeout`", "raise `build_timeout`"),
            ("use `run(\"goose\", \"up\")`", "use `{\"prepare\":[\"goose\",\"up\"]}`"),
            ("or `run_tcp(\"flyway\")`", "or `{\"prepare\":[\"flyway\"],\"tcp\":true}`"),
            ("by `Snapshot::run` (`--prepare`), or split", "by `prepare`, or split"),
            (
                "`Snapshot::migrations_of(MigrationTool::GolangMigrate, \"db\")`",
                "`{\"migrations_of\":[\"golang-migrate\",\"db\"]}`",
            ),
            ("`settings(work_mem = 5)`", "`{\"settings\":{\"work_mem\":\"5\"}}`"),
            ("as in `.migrations(\"a b\")`", "as in `{\"migrations\":\"a b\"}`"),
            ("add `package(\"postgresql-15-cron\")`", "add `{\"packages\":[\"postgresql-15-cron\"]}`"),
            ("install `postgresql`", "install `postgresql`"),
        ] {
            assert_eq!(with_keys(hint), expected);
        }
    }
}
