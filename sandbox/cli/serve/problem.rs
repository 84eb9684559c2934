//! Errors as answers.

use std::error::Error as _;
use std::path::PathBuf;

use sandboxed_db::Error;
use serde::Serialize;

use super::hint::with_keys;
use crate::failure::kebab;

/// The kind of a request that cannot be read.
const REQUEST: &str = "request";

/// An error of a request.
#[derive(Debug, Serialize)]
pub(super) struct Problem(Box<Parts>);

#[derive(Debug, Serialize)]
struct Parts {
    kind: String,
    /// The operation and its causes, each on its lines.
    message: String,
    hint: Option<String>,
    /// The end of the server's log.
    log: Option<String>,
    file: Option<PathBuf>,
    line: Option<u64>,
}

impl Problem {
    /// Returns the error of a request that does not follow the protocol.
    pub(super) fn request(operation: &str, cause: impl ToString) -> Self {
        Self::new(REQUEST, operation, &cause.to_string())
    }

    pub(super) fn with_hint(mut self, hint: &str) -> Self {
        self.0.hint = Some(hint.to_owned());
        self
    }

    /// Returns the error of the program itself: a thread that cannot be started.
    pub(super) fn control(operation: &str, cause: impl ToString) -> Self {
        Self::new("control", operation, &cause.to_string())
    }

    fn new(kind: &str, operation: &str, cause: &str) -> Self {
        let message = format!("could not {operation}\n  cause: {cause}");
        Self(Box::new(Parts {
            kind: kind.to_owned(),
            message,
            hint: None,
            log: None,
            file: None,
            line: None,
        }))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let step = error.to_string();
        // A refused value is named by its method.
        let step = if step.starts_with("set `") { with_keys(&step) } else { step };
        let mut message = format!("could not {step}");
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = match error.downcast_ref::<Error>() {
                Some(error) => format!("could not {error}"),
                None => error.to_string(),
            };
            message.push_str(&format!("\n  cause: {}", text.replace('\n', "\n         ")));
            cause = error.source();
        }
        Self(Box::new(Parts {
            kind: kebab(&format!("{:?}", error.kind())),
            message,
            hint: error.hint().map(with_keys),
            log: error.log().map(str::to_owned),
            file: error.file().map(ToOwned::to_owned),
            line: error.line(),
        }))
    }
}
