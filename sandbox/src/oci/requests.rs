//! Requests to registries: tokens, redirects, retries, deadlines.
//!
//! "Token Authentication Specification" of the Distribution project.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, HeaderName, LOCATION, RANGE, WWW_AUTHENTICATE,
};
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, AsSendBody, Body};

use super::challenge::Challenge;
use super::credentials::{Credentials, credentials};
use super::digest::Hashed;
use super::documents::{self, Descriptor};
use super::reference::{RegistryReference, is_loopback};
use super::source::same;
use super::tls;
use crate::progress::Progress;

/// The media types of documents that can be used.
pub(super) const DOCUMENTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";
pub(super) const ANY: &str = "*/*";

/// How often a request is tried, with a pause before each further time.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(6)];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a registry may send nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The slowest transfer, in bytes a second after [`START`].
const SLOWEST: u64 = 10_000;
const START: Duration = Duration::from_secs(60);
/// How often progress is shown.
const TICK: Duration = Duration::from_millis(500);

/// Bytes that have been moved, of all layers.
pub(super) struct Meter<'a> {
    progress: &'a Progress,
    work: &'static str,
    done: u64,
    all: u64,
    shown: Option<Instant>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(progress: &'a Progress, work: &'static str, all: u64) -> Self {
        Self { progress, work, done: 0, all, shown: None }
    }

    fn set(&mut self, done: u64) {
        self.done = done;
        if self.shown.is_none_or(|shown| shown.elapsed() >= TICK) {
            self.shown = Some(Instant::now());
            let [done, all] = [self.done, self.all].map(|bytes| bytes as f64 / 1e6);
            self.progress.step(&format!("{}, {done:.1} of {all:.1} MB", self.work));
        }
    }
}

/// The rights that a token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    PullAndPush,
}

/// A repository of a registry, and the right to use it.
#[derive(Debug, Clone)]
pub(super) struct Registry {
    agent: Agent,
    /// The beginning of all addresses, `https://host/v2/repository`.
    pub(super) address: String,
    pub(super) host: String,
    repository: String,
    is_http: bool,
    access: Access,
    /// Found when the registry asks for them: a helper of Docker may take its time.
    credentials: Arc<OnceLock<Credentials>>,
    /// The header that the registry has asked for.
    authorization: Arc<Mutex<Option<String>>>,
    /// When all requests, with their repetitions, must have ended.
    pub(super) deadline: Option<Instant>,
}

/// A request, which may be sent several times.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) address: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) payload: Payload<'a>,
}

/// The body of a request.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    File(&'a Path),
}

/// The answer of the server that hands out tokens.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    pub(super) fn of(reference: &RegistryReference, access: Access) -> io::Result<Self> {
        let RegistryReference { is_http, host, repository, .. } = reference;
        // The name that people write is not that of the registry.
        let server = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let scheme = if *is_http { "http" } else { "https" };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(!is_http)
            // Redirects are followed here: a token must not reach a storage service.
            .max_redirects(0)
            .user_agent(concat!("sandboxed-db/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT));
        let config = if *is_http { config.proxy(None) } else { config.tls_config(tls::config(server)) };
        Ok(Self {
            agent: config.build().new_agent(),
            address: format!("{scheme}://{server}/v2/{repository}"),
            host: host.clone(),
            repository: repository.clone(),
            is_http: *is_http,
            access,
            credentials: Arc::default(),
            authorization: Arc::default(),
            deadline: None,
        })
    }

    /// Returns the same repository with the right to write it, for which tokens are another.
    pub(super) fn for_writing(&self) -> Self {
        Self { access: Access::PullAndPush, authorization: Arc::default(), ..self.clone() }
    }

    /// Returns a document and its media type.
    pub(super) fn document(&self, path: &str, accept: &str) -> io::Result<(Vec<u8>, String)> {
        self.retry(|| {
            let response = self.get(path, accept, 0)?;
            let media_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().to_owned();
            Ok((read_document(response)?, media_type))
        })
    }

    /// Downloads a blob into a file, and goes on where an earlier try has ended.
    pub(super) fn blob(&self, blob: &Descriptor, file: &Path, meter: &mut Meter<'_>) -> io::Result<()> {
        let mut file = File::options().read(true).write(true).create_new(true).open(file)?;
        let before = meter.done;
        self.retry(|| {
            let have = file.seek(SeekFrom::End(0))?;
            // All of it may have arrived, and been wrong.
            let have = if have >= blob.size { 0 } else { have };
            let response = self.get(&format!("blobs/{}", blob.digest), ANY, have)?;
            let continues = response.status() == StatusCode::PARTIAL_CONTENT && starts_at(&response, have);
            let mut done = if continues { have } else { 0 };
            file.set_len(done)?;
            file.seek(SeekFrom::Start(done))?;
            // One byte more shows a blob that is too long.
            let body = response.into_body().into_reader().take((blob.size - done).saturating_add(1));
            let mut reader = Bounded::new(body, blob.size - done);
            let mut buffer = vec![0; 1 << 17];
            loop {
                let read = reader.read(&mut buffer).map_err(Trouble::of_body)?;
                if read == 0 {
                    break;
                }
                file.write_all(&buffer[..read])?;
                done += read as u64;
                meter.set(before + done);
            }
            if done != blob.size {
                let why = format!("{done} bytes of {} arrived, of {}", blob.size, blob.digest);
                return Err(Trouble::Passing(io::Error::new(io::ErrorKind::UnexpectedEof, why)));
            }
            file.seek(SeekFrom::Start(0))?;
            same("a layer", blob.digest, Hashed::new(&file).finish()?).map_err(Trouble::Passing)
        })
    }

    /// Asks for a document or a blob, from a byte on.
    fn get(&self, path: &str, accept: &str, from: u64) -> Result<Response<Body>, Trouble> {
        let address = format!("{}/{path}", self.address);
        let mut headers = vec![(ACCEPT, accept.to_owned())];
        if from > 0 {
            headers.push((RANGE, format!("bytes={from}-")));
        }
        let ask = Ask { method: Method::GET, address, headers, payload: Payload::None };
        let response = self.answer(&ask)?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(self.refused(status)),
        }
    }

    /// Sends a request, with a token if the registry asks for one. Returns an answer of any status.
    pub(super) fn answer(&self, ask: &Ask<'_>) -> Result<Response<Body>, Trouble> {
        let response = self.send(ask)?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = challenges.filter_map(|value| Challenge::parse(value.to_str().ok()?)).next();
        let authorization =
            self.authorize(challenge.ok_or_else(|| self.refused(StatusCode::UNAUTHORIZED))?)?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        self.send(ask)
    }

    /// Sends a request, and follows redirects of one that only reads. Only the registry itself sees
    /// the token.
    fn send(&self, ask: &Ask<'_>) -> Result<Response<Body>, Trouble> {
        const MOST: usize = 5;
        let only_reads = [Method::GET, Method::HEAD].contains(&ask.method);
        let mut address = ask.address.clone();
        for _ in 0..MOST {
            let response = self.send_to(&address, ask)?;
            if !response.status().is_redirection() || !only_reads {
                return Ok(response);
            }
            address = self.target(&response, &address)?;
        }
        Err(Trouble::Final(io::Error::other(format!("{} redirects its clients without end", self.host))))
    }

    fn send_to(&self, address: &str, ask: &Ask<'_>) -> Result<Response<Body>, Trouble> {
        let mut request = Request::builder().method(&ask.method).uri(address);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if origin(address) == origin(&self.address)
            && let Some(authorization) = &*self.authorization.lock().unwrap_or_else(PoisonError::into_inner)
        {
            request = request.header(AUTHORIZATION, authorization);
        }
        match ask.payload {
            Payload::None => self.run(request.body(())),
            Payload::Bytes(bytes) => self.run(request.body(bytes)),
            Payload::File(path) => self.run(request.body(File::open(path)?)),
        }
    }

    /// Sends a request, and waits no longer than the deadline.
    fn run<B: AsSendBody>(
        &self,
        request: Result<Request<B>, ureq::http::Error>,
    ) -> Result<Response<Body>, Trouble> {
        let mut request = request.map_err(|error| Trouble::Final(io::Error::other(error)))?;
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Trouble::Final(self.too_slow()));
            }
            request = self.agent.configure_request(request).timeout_global(Some(left)).build();
        }
        self.agent.run(request).map_err(Trouble::of)
    }

    fn too_slow(&self) -> io::Error {
        io::Error::new(io::ErrorKind::NotConnected, format!("{} does not answer in time", self.host))
    }

    /// Returns the address to which an answer leads.
    pub(super) fn target(&self, response: &Response<Body>, from: &str) -> Result<String, Trouble> {
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
        let to = if to.starts_with('/') { format!("{}{to}", origin(from)) } else { to.to_owned() };
        if self.is_private(&to) {
            return Ok(to);
        }
        let why = format!("{} sends its clients to `{to}`, which is not https", self.host);
        Err(Trouble::Final(io::Error::other(why)))
    }

    /// Returns `true` for an address at which nobody listens in between.
    fn is_private(&self, address: &str) -> bool {
        let is_local = |address: &str| origin(address).strip_prefix("http://").is_some_and(is_loopback);
        address.starts_with("https://") || self.is_http && is_local(address)
    }

    fn credentials(&self) -> &Credentials {
        self.credentials.get_or_init(|| credentials(&self.host))
    }

    /// Returns the header that answers a challenge.
    fn authorize(&self, challenge: Challenge) -> Result<String, Trouble> {
        let basic = self.credentials().basic();
        let Challenge::Bearer { realm, service } = challenge else {
            return basic.ok_or_else(|| self.refused(StatusCode::UNAUTHORIZED));
        };
        // Credentials go to that address.
        if !self.is_private(&realm) {
            let why = format!("{} sends its clients for a token to `{realm}`, which is not https", self.host);
            return Err(Trouble::Final(io::Error::other(why)));
        }
        let actions = match self.access {
            Access::Pull => "pull",
            Access::PullAndPush => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.repository);
        let request = self.agent.get(&realm).query("scope", scope);
        let request = if service.is_empty() { request } else { request.query("service", service) };
        let request = match basic {
            Some(basic) => request.header(AUTHORIZATION, basic),
            None => request,
        };
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let request = request.config().timeout_global(left.or(Some(READ_TIMEOUT))).build();
        let response = request.call().map_err(Trouble::of)?;
        if !response.status().is_success() {
            return Err(self.refused(response.status()));
        }
        let bytes = read_document(response)?;
        let token: Token = documents::parse("token", &bytes)?;
        let token = token.token.or(token.access_token);
        let token = token.ok_or_else(|| Trouble::Final(io::Error::other("the registry's token is empty")))?;
        Ok(format!("Bearer {token}"))
    }

    /// Returns the meaning of a status that is no success.
    pub(super) fn refused(&self, status: StatusCode) -> Trouble {
        let Self { host, repository, .. } = self;
        let verb = if self.access == Access::Pull { "read" } else { "written" };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Trouble::Final(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{host} does not let `{repository}` be {verb}{}", self.credentials().advice(host)),
            )),
            StatusCode::NOT_FOUND => {
                let why = format!("{host} has no such image");
                Trouble::Final(io::Error::new(io::ErrorKind::NotFound, why))
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                // `retry` names the host.
                let why = format!("it answered {status}");
                Trouble::Passing(io::Error::new(io::ErrorKind::NotConnected, why))
            }
            status => Trouble::Final(io::Error::other(format!("{host} answered {status}"))),
        }
    }

    /// Tries again what may succeed the next time.
    pub(super) fn retry<T>(&self, mut work: impl FnMut() -> Result<T, Trouble>) -> io::Result<T> {
        let mut last = None;
        // A caller with a deadline can do without the registry.
        let tries = if self.deadline.is_some() { 2 } else { PAUSES.len() };
        for pause in PAUSES.into_iter().take(tries) {
            if last.is_some() && self.deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
                break;
            }
            std::thread::sleep(pause);
            match work() {
                Ok(outcome) => return Ok(outcome),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(error)) => {
                    tracing::debug!(%error, host = self.host, "a request to a registry is tried again");
                    last = Some(error);
                }
            }
        }
        let error = last.expect("it was tried at least once");
        Err(io::Error::new(error.kind(), format!("{}: {error}", self.host)))
    }
}

pub(super) fn read_document(response: Response<Body>) -> Result<Vec<u8>, Trouble> {
    let body = Bounded::new(response.into_body().into_reader(), 0);
    documents::read(body).map_err(Trouble::of_body)
}

/// A body that must arrive in time, though its sender never pauses for long.
struct Bounded<R> {
    body: R,
    deadline: Instant,
}

impl<R> Bounded<R> {
    fn new(body: R, size: u64) -> Self {
        Self { body, deadline: Instant::now() + START + Duration::from_secs(size / SLOWEST) }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() > self.deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the registry sends too slowly"));
        }
        self.body.read(buffer)
    }
}

/// Returns the scheme, the host and the port of an address.
pub(super) fn origin(address: &str) -> &str {
    let host = address.find("://").map_or(0, |at| at + 3);
    address[host..].find(['/', '?', '#']).map_or(address, |end| &address[..host + end])
}

/// Returns `true` if a partial answer begins at that byte.
fn starts_at(response: &Response<Body>, from: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

/// A failed request.
pub(super) enum Trouble {
    /// May succeed the next time.
    Passing(io::Error),
    Final(io::Error),
}

impl Trouble {
    fn of(error: ureq::Error) -> Self {
        let unreachable = |why: String| Self::Passing(io::Error::new(io::ErrorKind::NotConnected, why));
        match error {
            ureq::Error::Io(error) => unreachable(error.to_string()),
            ureq::Error::Timeout(what) => unreachable(format!("no answer in time ({what})")),
            ureq::Error::HostNotFound => unreachable("the host is not found".to_owned()),
            ureq::Error::ConnectionFailed => unreachable("the connection failed".to_owned()),
            other => Self::Final(io::Error::other(other)),
        }
    }

    /// The connection ended, or the document is too long.
    pub(super) fn of_body(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Other => match error.downcast::<ureq::Error>() {
                Ok(error) => Self::of(error),
                Err(error) => Self::Final(error),
            },
            _ => Self::Passing(io::Error::new(io::ErrorKind::NotConnected, error.to_string())),
        }
    }
}

/// A failed operation of this machine.
impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Final(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_drips_ends_at_its_deadline() {
        let mut body = Bounded::new(io::repeat(0), 0);
        body.read_exact(&mut [0; 10]).unwrap();
        body.deadline = Instant::now() - Duration::from_secs(1);
        assert_eq!(body.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn another_port_is_another_origin() {
        assert_eq!(origin("https://a.io:5/v2/x?y=https://b"), "https://a.io:5");
        assert_ne!(origin("https://a.io/x"), origin("https://a.io:5/x"));
        assert_ne!(origin("https://a.io/x"), origin("https://a.io@b.io/x"));
        assert_eq!(origin("https://a.io"), "https://a.io");
    }
}
