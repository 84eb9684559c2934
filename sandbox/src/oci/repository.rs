//! A repository whose artifacts are read and written: what a registry has by name, by digest, and
//! by a push.
//!
//! Distribution Specification of the Open Container Initiative, "Pull", "Push" and "Content
//! Discovery".

use std::io;
use std::path::Path;
use std::time::Instant;

use serde::Deserialize;
use ureq::Body;
use ureq::http::header::{ACCEPT, CONTENT_TYPE, LINK};
use ureq::http::{Method, Response, StatusCode};

use super::digest::Sha256;
use super::documents::{self, Descriptor};
use super::reference::RegistryReference;
use super::requests::{
    ANY, Access, Ask, DOCUMENTS, Meter, Payload, Registry, Trouble, origin, read_document,
};
use super::source::same;
use crate::progress::Progress;

/// The most pages of a list of tags.
const MOST_PAGES: usize = 100;

/// Bytes in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: Sha256,
    pub(crate) size: u64,
}

/// A repository of a registry. Requests that only read ask for the right to read alone.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    reader: Registry,
    writer: Registry,
}

/// A page of the names in a repository.
#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

impl Repository {
    /// Sends nothing yet.
    pub(crate) fn of(reference: &RegistryReference) -> io::Result<Self> {
        let reader = Registry::of(reference, Access::Pull)?;
        let writer = reader.for_writing();
        Ok(Self { reader, writer })
    }

    /// Returns the repository with a deadline for all requests, their repetitions included.
    pub(crate) fn until(&self, deadline: Instant) -> Self {
        let mut other = self.clone();
        other.reader.deadline = Some(deadline);
        other.writer.deadline = Some(deadline);
        other
    }

    /// Returns the manifest of a tag; `None` if there is none.
    pub(crate) fn manifest(&self, tag: &str) -> io::Result<Option<Vec<u8>>> {
        let path = format!("manifests/{tag}");
        self.reader.retry(|| {
            let response = asked(&self.reader, &ask(&self.reader, Method::GET, &path, DOCUMENTS))?;
            match response.status() {
                StatusCode::NOT_FOUND => Ok(None),
                status if status.is_success() => read_document(response).map(Some),
                status => Err(self.reader.refused(status)),
            }
        })
    }

    /// Returns a blob that is a document.
    pub(crate) fn document(&self, blob: Blob) -> io::Result<Vec<u8>> {
        if blob.size > documents::LARGEST {
            return Err(io::Error::other(format!("a document has {} bytes, which is too large", blob.size)));
        }
        let path = format!("blobs/{}", blob.digest);
        self.reader.retry(|| {
            let response = asked(&self.reader, &ask(&self.reader, Method::GET, &path, ANY))?;
            match response.status() {
                status if status.is_success() => {
                    let bytes = read_document(response)?;
                    same("a document", blob.digest, Sha256::of(&bytes))?;
                    Ok(bytes)
                }
                status => Err(self.reader.refused(status)),
            }
        })
    }

    /// Downloads blobs into a directory, each by the name of its digest.
    pub(crate) fn download(&self, blobs: &[Blob], into: &Path, progress: &Progress) -> io::Result<()> {
        let mut meter = Meter::new(progress, "downloading", blobs.iter().map(|blob| blob.size).sum());
        for blob in blobs {
            let file = into.join(blob.digest.hex());
            if !file.exists() {
                self.reader.blob(&Descriptor::of_blob(blob.digest, blob.size), &file, &mut meter)?;
            }
        }
        Ok(())
    }

    /// Returns all names in the repository.
    pub(crate) fn tags(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let mut next = ask(&self.reader, Method::GET, "tags/list?n=1000", ANY);
        for _ in 0..MOST_PAGES {
            let (page, more) = self.reader.retry(|| {
                let response = asked(&self.reader, &next)?;
                match response.status() {
                    StatusCode::NOT_FOUND => Ok((Tags { tags: None }, None)),
                    status if status.is_success() => {
                        let more = next_page(&response).map(str::to_owned);
                        Ok((documents::parse("list of tags", &read_document(response)?)?, more))
                    }
                    status => Err(self.reader.refused(status)),
                }
            })?;
            names.extend(page.tags.into_iter().flatten());
            match more {
                Some(path) => next.address = format!("{}{path}", origin(&self.reader.address)),
                None => break,
            }
        }
        Ok(names)
    }

    pub(crate) fn has_manifest(&self, tag: &str) -> io::Result<bool> {
        self.has(&format!("manifests/{tag}"), is_document)
    }

    pub(crate) fn has_blob(&self, digest: Sha256) -> io::Result<bool> {
        self.has(&format!("blobs/{digest}"), |_| true)
    }

    /// Asks as a writer, whose token then serves for the push.
    fn has(&self, path: &str, is_it: impl Fn(&Response<Body>) -> bool) -> io::Result<bool> {
        self.writer.retry(|| {
            let response = asked(&self.writer, &ask(&self.writer, Method::HEAD, path, DOCUMENTS))?;
            match response.status() {
                StatusCode::NOT_FOUND => Ok(false),
                status if status.is_success() && is_it(&response) => Ok(true),
                status if status.is_success() => Err(Trouble::Final(io::Error::other(format!(
                    "{} answers {status} without a manifest, and is no registry",
                    self.writer.host
                )))),
                status => Err(self.writer.refused(status)),
            }
        })
    }

    /// Uploads a file as a blob, in one request.
    pub(crate) fn push_file(&self, digest: Sha256, file: &Path) -> io::Result<()> {
        self.push_blob(digest, Payload::File(file))
    }

    pub(crate) fn push_document(&self, document: &[u8]) -> io::Result<Blob> {
        let blob = Blob { digest: Sha256::of(document), size: document.len() as u64 };
        self.push_blob(blob.digest, Payload::Bytes(document))?;
        Ok(blob)
    }

    fn push_blob(&self, digest: Sha256, payload: Payload<'_>) -> io::Result<()> {
        let registry = &self.writer;
        registry.retry(|| {
            let mut begin = ask(registry, Method::POST, "blobs/uploads/", ANY);
            begin.payload = Payload::Bytes(&[]);
            let begun = asked(registry, &begin)?;
            if begun.status() != StatusCode::ACCEPTED {
                return Err(self.not_written(begun.status()));
            }
            let place = registry.target(&begun, &registry.address)?;
            let separator = if place.contains('?') { '&' } else { '?' };
            let address = format!("{place}{separator}digest={}", digest.to_string().replace(':', "%3A"));
            let headers = vec![(CONTENT_TYPE, "application/octet-stream".to_owned())];
            let stored = asked(registry, &Ask { method: Method::PUT, address, headers, payload })?;
            match stored.status() {
                StatusCode::CREATED => Ok(()),
                status => Err(self.not_written(status)),
            }
        })
    }

    /// Gives a manifest, whose blobs are there, its name.
    pub(crate) fn push_manifest(&self, tag: &str, media_type: &str, manifest: &[u8]) -> io::Result<()> {
        self.writer.retry(|| {
            let mut request = ask(&self.writer, Method::PUT, &format!("manifests/{tag}"), ANY);
            request.headers.push((CONTENT_TYPE, media_type.to_owned()));
            request.payload = Payload::Bytes(manifest);
            match asked(&self.writer, &request)?.status() {
                status if status.is_success() => Ok(()),
                status => Err(self.not_written(status)),
            }
        })
    }

    /// Returns the meaning of a status with which a registry answers a push.
    fn not_written(&self, status: StatusCode) -> Trouble {
        let host = &self.writer.host;
        let why = match status {
            StatusCode::METHOD_NOT_ALLOWED => format!("{host} is read-only"),
            StatusCode::PAYLOAD_TOO_LARGE => format!("{host} takes no blob of that size"),
            StatusCode::INSUFFICIENT_STORAGE => format!("{host} is full"),
            StatusCode::NOT_FOUND => format!("{host} has no such repository, and does not make it"),
            status => return self.writer.refused(status),
        };
        Trouble::Final(io::Error::other(why))
    }
}

fn ask<'a>(registry: &Registry, method: Method, path: &str, accept: &str) -> Ask<'a> {
    let address = format!("{}/{path}", registry.address);
    Ask { method, address, headers: vec![(ACCEPT, accept.to_owned())], payload: Payload::None }
}

/// Sends a request. A status that may be another one the next time is an error.
fn asked(registry: &Registry, request: &Ask<'_>) -> Result<Response<Body>, Trouble> {
    let response = registry.answer(request)?;
    let status = response.status();
    let may_pass = status.is_server_error() && status != StatusCode::INSUFFICIENT_STORAGE
        || status == StatusCode::TOO_MANY_REQUESTS;
    if may_pass { Err(registry.refused(status)) } else { Ok(response) }
}

/// Returns `true` for the answer of a registry that has a manifest. Another server, such as one
/// with a page to log in, may answer with success whatever is asked.
fn is_document(response: &Response<Body>) -> bool {
    let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media_type.is_some_and(|media_type| media_type.starts_with("application/vnd."))
}

/// The path of the next page of a list, RFC 8288. Another place is never asked.
fn next_page(response: &Response<Body>) -> Option<&str> {
    let link = response.headers().get(LINK)?.to_str().ok()?;
    path_of(link)
}

fn path_of(link: &str) -> Option<&str> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    (rest.contains("next") && target.starts_with("/v2/")).then_some(target)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_a_path_of_the_registry() {
        assert_eq!(path_of("</v2/a/tags/list?n=2&last=b>; rel=\"next\""), Some("/v2/a/tags/list?n=2&last=b"));
        for other in ["", "</v2/a>", "<https://other.io/v2/a>; rel=\"next\"", "</v2/a>; rel=\"prev\"", "<"] {
            assert_eq!(path_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_page_to_log_in_is_no_manifest() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let answers = std::thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let mut request = BufReader::new(client.try_clone().unwrap()).lines();
            while request.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            client
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
        });
        let repository = Repository::of(&format!("{address}/layers").parse().unwrap()).unwrap();
        let error = repository.has_manifest("tag").unwrap_err();
        assert!(
            error.to_string().ends_with("answers 200 OK without a manifest, and is no registry"),
            "{error}"
        );
        answers.join().unwrap();
    }

    proptest! {
        #[test]
        fn no_link_panics(link in "<?[a-z/>;= ]{0,30}") {
            let _ = path_of(&link);
        }
    }
}
