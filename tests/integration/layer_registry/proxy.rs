//! A proxy that makes a registry misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::registries::DockerRegistry;

/// A change that a proxy makes to the answers of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mischief {
    /// Another byte in archives, or in documents.
    LiesInArchives,
    LiesInDocuments,
    /// Ends amid archives, or amid documents.
    CutsArchives,
    CutsDocuments,
    /// Sends archives a byte at a time.
    Drips,
    /// Denies all reads, as registries do for a repository that does not exist yet.
    HidesRepositories,
    /// Refuses what is sent to it.
    IsFull,
    /// Answers no request, and keeps the connection.
    IsSilent,
    /// Asks for a token, and sends its clients to another port for uploads.
    SendsElsewhere,
}

/// A proxy before a registry.
pub(super) struct Proxy {
    upstream: u16,
    pub(super) port: u16,
    pub(super) elsewhere: u16,
    mischief: Mischief,
    /// The first line of each request with its port and its credentials.
    pub(super) requests: Mutex<Vec<(String, u16, String)>>,
    held: Mutex<Vec<TcpStream>>,
    pub(super) changed: AtomicUsize,
}

impl Proxy {
    /// Serves in threads that end with the process.
    pub(super) fn serve(registry: &DockerRegistry, mischief: Mischief) -> Arc<Self> {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, elsewhere] = [&listeners[0], &listeners[1]].map(|it| it.local_addr().unwrap().port());
        let (requests, held, changed) = Default::default();
        let proxy =
            Arc::new(Self { upstream: registry.port, port, elsewhere, mischief, requests, held, changed });
        for listener in listeners {
            let proxy = proxy.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let proxy = proxy.clone();
                    std::thread::spawn(move || proxy.answer(stream));
                }
            });
        }
        proxy
    }

    pub(super) fn layers(&self) -> String {
        format!("127.0.0.1:{}/team/test-layers", self.port)
    }

    fn answer(&self, mut client: TcpStream) -> Option<()> {
        let port = client.local_addr().ok()?.port();
        let mut reader = BufReader::new(client.try_clone().ok()?);
        let mut first = String::new();
        reader.read_line(&mut first).ok()?;
        let headers: Vec<_> =
            reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            let mut pairs = headers.iter().filter_map(|line| line.split_once(": "));
            pairs.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let authorization = header("authorization").unwrap_or_default();
        self.requests.lock().unwrap().push((first.trim().to_owned(), port, authorization.clone()));
        let mut body = vec![0; header("content-length").and_then(|it| it.parse().ok()).unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        let method = first.split(' ').next()?;
        let mut say = |answer: &str| client.write_all(answer.as_bytes()).ok();
        match self.mischief {
            Mischief::IsSilent => {
                self.held.lock().unwrap().push(client);
                return None;
            }
            Mischief::HidesRepositories if method == "GET" => {
                return say("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            }
            Mischief::IsFull if method == "PUT" => {
                return say(
                    "HTTP/1.1 507 Insufficient Storage\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                );
            }
            Mischief::SendsElsewhere if first.contains(" /token?") => {
                return say(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 18\r\n\r\n{\"token\":\"secret\"}",
                );
            }
            Mischief::SendsElsewhere if port == self.port && authorization != "Bearer secret" => {
                return say(&format!(
                    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"here\"\r\n\
                     Connection: close\r\nContent-Length: 0\r\n\r\n"
                ));
            }
            _ => {}
        }
        let mut upstream = TcpStream::connect(("127.0.0.1", self.upstream)).ok()?;
        let kept = headers.iter().filter(|line| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            !["connection", "authorization"].contains(&name.as_str())
        });
        let head: String = kept.map(|line| format!("{line}\r\n")).collect();
        upstream.write_all(format!("{first}{head}Connection: close\r\n\r\n").as_bytes()).ok()?;
        upstream.write_all(&body).ok()?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer).ok()?;
        let is_blob = method == "GET" && first.contains("/blobs/");
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let is_archive = is_blob && answer[body..].starts_with(&[0x1f, 0x8b]);
        let is_document = is_blob && !is_archive;
        match self.mischief {
            Mischief::LiesInArchives if is_archive => self.change(&mut answer, |last| *last ^= 1),
            Mischief::LiesInDocuments if is_document => self.change(&mut answer, |last| *last = b' '),
            Mischief::Drips if is_archive => {
                for byte in &answer {
                    client.write_all(&[*byte]).ok()?;
                    std::thread::sleep(Duration::from_millis(500));
                }
                return None;
            }
            Mischief::CutsArchives if is_archive => self.cut(&mut answer, body),
            Mischief::CutsDocuments if is_document => self.cut(&mut answer, body),
            Mischief::SendsElsewhere if method == "POST" => {
                let text = String::from_utf8(answer).ok()?;
                let place = text.split("Location: ").nth(1)?.split("/v2/").next()?.to_owned();
                answer = text.replace(&place, &format!("http://127.0.0.1:{}", self.elsewhere)).into_bytes();
            }
            _ => {}
        }
        client.write_all(&answer).ok()
    }
}

impl Proxy {
    fn change(&self, answer: &mut [u8], change: impl FnMut(&mut u8)) {
        self.changed.fetch_add(1, Ordering::Relaxed);
        answer.last_mut().into_iter().for_each(change);
    }

    fn cut(&self, answer: &mut Vec<u8>, body: usize) {
        self.changed.fetch_add(1, Ordering::Relaxed);
        answer.truncate(body + (answer.len() - body) / 2);
    }
}
