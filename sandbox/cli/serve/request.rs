//! Requests: their form, and the errors of other forms.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::Problem;
use crate::description::Description;

const METHODS: &str = "`start`, `stop`, `log` or `end`";

/// A request and its number.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: Value,
    pub(super) method: Method,
}

#[derive(Debug)]
pub(super) enum Method {
    Start(Box<Start>),
    Stop(Stop),
    Log(Log),
    End,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    #[serde(default)]
    pub(super) snapshot: Description,
    /// The place where relative paths start.
    #[serde(default)]
    pub(super) directory: PathBuf,
    /// The name of the test in reports.
    pub(super) test: Option<String>,
    #[serde(default)]
    pub(super) tcp: bool,
    pub(super) keep: Option<Keep>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Keep {
    Never,
    OnFailure,
    Always,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stop {
    pub(super) sandbox: u64,
    #[serde(default)]
    pub(super) failed: bool,
    #[serde(default)]
    pub(super) message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) sandbox: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    id: Value,
    method: String,
    #[serde(default)]
    params: Map<String, Value>,
}

/// Reads a line.
///
/// # Errors
/// The number of the request, `null` if it has none, and the problem.
pub(super) fn read(line: &[u8]) -> Result<Request, (Value, Problem)> {
    let unread = |cause: String| Problem::request("read a request", cause);
    let value: Value = serde_json::from_slice(line)
        .map_err(|error| (Value::Null, unread(format!("the line is not JSON: {error}"))))?;
    let id = value.get("id").filter(|id| id.is_string() || id.is_number()).cloned();
    let Some(id) = id else {
        let cause = "it is not an object with an `id` that is a number or a string";
        let hint = "write {\"id\": 1, \"method\": \"start\", \"params\": {}}";
        return Err((Value::Null, unread(cause.to_owned()).with_hint(hint)));
    };
    let failed = |problem| (id.clone(), problem);
    let envelope: Envelope =
        serde_json::from_value(value).map_err(|error| failed(unread(error.to_string())))?;
    let Envelope { method, params, .. } = envelope;
    let method = match method.as_str() {
        "start" => parameters(&method, params).map(|start| Method::Start(Box::new(start))),
        "stop" => parameters(&method, params).map(Method::Stop),
        "log" => parameters(&method, params).map(Method::Log),
        "end" => parameters(&method, params).map(|Nothing {}| Method::End),
        _ => Err(unread(format!("the method `{method}` is unknown, expected {METHODS}"))),
    };
    Ok(Request { method: method.map_err(failed)?, id: envelope.id })
}

fn parameters<T: DeserializeOwned>(method: &str, params: Map<String, Value>) -> Result<T, Problem> {
    serde_json::from_value(Value::Object(params))
        .map_err(|error| Problem::request(&format!("read the params of `{method}`"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: &str) -> (Value, String) {
        let (id, problem) = read(line.as_bytes()).expect_err("the line is no request");
        (id, serde_json::to_value(problem).unwrap()["message"].as_str().unwrap().to_owned())
    }

    #[test]
    fn unknown_names_are_refused_with_the_choices() {
        for (line, number, expected) in [
            ("{", Value::Null, "not JSON"),
            ("[1]", Value::Null, "`id`"),
            ("{\"id\":[],\"method\":\"end\"}", Value::Null, "`id`"),
            ("{\"id\":\"a\"}", "a".into(), "missing field `method`"),
            ("{\"id\":1,\"method\":\"end\",\"x\":1}", 1.into(), "unknown field `x`, expected one of `id`"),
            ("{\"id\":1,\"method\":\"go\"}", 1.into(), "`go` is unknown, expected `start`, `stop`"),
            (
                "{\"id\":1,\"method\":\"end\",\"params\":{\"x\":1}}",
                1.into(),
                "read the params of `end`\n  cause: unknown field `x`",
            ),
            ("{\"id\":1,\"method\":\"stop\"}", 1.into(), "missing field `sandbox`"),
            (
                "{\"id\":1,\"method\":\"start\",\"params\":{\"keep\":\"failed\"}}",
                1.into(),
                "unknown variant `failed`, expected one of `never`, `on_failure`, `always`",
            ),
            (
                "{\"id\":1,\"method\":\"start\",\"params\":{\"snapshot\":{\"engine\":\"oracle\"}}}",
                1.into(),
                "unknown engine `oracle`, expected `postgres`, `mariadb`, `mysql`, `redis`, `sqlite`",
            ),
            (
                "{\"id\":1,\"method\":\"start\",\"params\":{\"snapshot\":{\"start_timeout\":\"x\"}}}",
                1.into(),
                "expected a time such as \"30s\"",
            ),
        ] {
            let (id, message) = problem(line);
            assert_eq!(id, number, "{line}");
            assert!(message.contains(expected), "{line}: {message}");
        }
    }
}
