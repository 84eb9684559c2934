//! Images from registries: Debian's docker-registry, and one that misbehaves.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use sandboxed_db::{ErrorKind, Postgres, Snapshot};
use sandboxed_db_tests::{
    DEADLINE, OciLayout, alone, assert_says, continues_on_terminal, installed_postgres, passed, refused,
    sha256, skip, skip_without_root, value_at, wait_until,
};
use tempfile::TempDir;

/// Debian's registry on a port of the loopback, with its files in a directory.
pub(crate) struct DockerRegistry {
    process: Child,
    pub(crate) port: u16,
    pub(crate) place: TempDir,
}

impl DockerRegistry {
    /// Returns `None` where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// Refuses all pushes.
    pub(crate) fn read_only() -> Option<Self> {
        Self::start_with("  maintenance:\n    readonly:\n      enabled: true\n")
    }

    /// With further settings of its storage.
    fn start_with(storage: &str) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let files = place.path().join("files");
        let configuration = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n{storage}http:\n  addr: 127.0.0.1:{port}\n",
            files.display()
        );
        fs::write(place.path().join("config.yml"), configuration).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(place.path().join("config.yml"));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let registry = Self { process, port, place };
        wait_until(DEADLINE, "the registry listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(registry)
    }

    pub(crate) fn copy(&self, from: &str, name: &str) {
        let to = format!("docker://127.0.0.1:{}/{name}", self.port);
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", from, &to]);
        let output = skopeo.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_image_is_pulled_once_from_a_registry() {
    if let Some(shown) = continues_on_terminal(an_image_is_pulled_once_from_a_registry) {
        // Nothing is downloaded where the test skips.
        if !shown.contains("is not installed") {
            assert_says(&shown, &["unpacking 127.0.0.1", ": downloading, ", " MB ("]);
        }
        return;
    }
    let (Some(registry), Some(layer)) = (DockerRegistry::start(), installed_postgres(&[])) else {
        return skip("docker-registry or a PostgreSQL of Debian's layout is not installed");
    };
    let layout = OciLayout::write(&registry.place.path().join("layout"), &layer, &[]);
    registry.copy(&layout.reference(), "team/db:1");
    let name = format!("127.0.0.1:{}/team/db", registry.port);
    // Outside of repositories, so that nothing is recorded.
    let directory = tempfile::tempdir().unwrap();
    let snapshot =
        |reference: &str| Snapshot::new(Postgres::new()).relative_to(directory.path()).image(reference);
    let db = snapshot(&format!("{name}:1")).start().unwrap();
    assert_eq!(value_at::<i32>(db.url(), "select 1"), 1);
    assert!(db.root().join("usr/bin").symlink_metadata().is_err(), "it is the host's server");
    assert_says(&refused(&snapshot(&format!("{name}:2"))), &["has no such image"]);
    let other = format!("{name}@sha256:{}", sha256(b"x"));
    assert_says(&refused(&snapshot(&other)), &["has no such image"]);
    // Once pulled, the name needs no registry.
    drop(registry);
    assert_eq!(value_at::<i32>(snapshot(&format!("{name}:1")).start().unwrap().url(), "select 1"), 1);
    let error = snapshot(&format!("{name}:3")).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInstalled, "{error:?}");
    assert_says(&format!("{error:?}"), &["could not use the image", "Connection refused"]);
}

#[test]
fn images_of_buildah_are_read() {
    if !rustix::process::geteuid().is_root() {
        return skip_without_root("buildah needs a range of user ids");
    }
    let Some(registry) = DockerRegistry::start() else { return skip("docker-registry is not installed") };
    let place = registry.place.path();
    let [storage, run] = ["storage", "run"].map(|name| place.join(name));
    let buildah = |args: &[&str]| {
        let mut buildah = Command::new("buildah");
        buildah.arg("--root").arg(&storage).arg("--runroot").arg(&run).args(["--storage-driver", "vfs"]);
        let output = buildah.args(args).current_dir(place).output().ok()?;
        assert!(output.status.success(), "{output:?}");
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(container) = buildah(&["from", "scratch"]) else { return skip("buildah is not installed") };
    fs::write(place.join("file"), "contents").unwrap();
    buildah(&["add", "--quiet", &container, "file", "/directory/file"]);
    let name = format!("127.0.0.1:{}/team/buildah", registry.port);
    // Docker's documents and those of OCI.
    for format in ["docker", "oci"] {
        buildah(&["commit", "--quiet", "--format", format, &container, format]);
        buildah(&["push", "--quiet", "--tls-verify=false", format, &format!("docker://{name}:{format}")]);
        buildah(&["push", "--quiet", format, &format!("{format}-archive:{format}.tar")]);
    }
    let files = ["docker-archive:docker.tar".to_owned(), "oci-archive:oci.tar".to_owned()];
    for reference in files.into_iter().chain(["docker", "oci"].map(|tag| format!("{name}:{tag}"))) {
        let snapshot = Snapshot::new(Postgres::new()).relative_to(place).image(&reference);
        let error = snapshot.start().unwrap_err();
        // It was read and unpacked.
        assert_says(&format!("{error:?}"), &["could not find `postgres` in the image sha256:"]);
    }
}

/// A registry of one image, which asks for a token, is busy at first, sends its clients elsewhere
/// for blobs, and cuts the first answer there.
struct Difficult {
    layout: OciLayout,
    blobs_at: u16,
    /// The first line of each request, and its credentials.
    requests: Mutex<Vec<(String, String)>>,
}

impl Difficult {
    /// Serves in threads that end with the process. Returns the port of the registry.
    fn serve(place: &Path, layer: &[u8]) -> (u16, Arc<Self>) {
        let layout = OciLayout::write(place, layer, &[]);
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [registry, blobs] = [&listeners[0], &listeners[1]].map(|it| it.local_addr().unwrap().port());
        let served = Arc::new(Self { layout, blobs_at: blobs, requests: Mutex::default() });
        for listener in listeners {
            let served = served.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    served.answer(stream, registry);
                }
            });
        }
        (registry, served)
    }

    fn answer(&self, mut stream: TcpStream, registry: u16) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        let headers: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            let named = headers.iter().find_map(|line| {
                let (found, value) = line.split_once(": ")?;
                found.eq_ignore_ascii_case(name).then(|| value.to_owned())
            });
            named.unwrap_or_default()
        };
        let authorization = header("authorization");
        let number = {
            let mut requests = self.requests.lock().unwrap();
            requests.push((first.clone(), authorization.clone()));
            requests.iter().filter(|(line, _)| *line == first).count()
        };
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let at_registry = stream.local_addr().unwrap().port() == registry;
        let blob =
            path.strip_prefix("/storage/").map(|digest| fs::read(self.layout.path_of(digest)).unwrap());
        let (status, more, body) = if let Some(blob) = blob {
            let from =
                header("range").trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0_usize);
            let all = blob.len();
            let range = format!("Content-Range: bytes {from}-{}/{all}\r\n", all - 1);
            let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
            (status, range, blob[from..].to_vec())
        } else if path.starts_with("/token") {
            ("200 OK", String::new(), br#"{"token":"secret"}"#.to_vec())
        } else if authorization != "Bearer secret" {
            let realm = format!("http://127.0.0.1:{registry}/token");
            let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"here\"\r\n");
            ("401 Unauthorized", challenge, Vec::new())
        } else if let Some((_, digest)) = path.split_once("/manifests/sha256:") {
            let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
            ("200 OK", kind.to_owned(), fs::read(self.layout.path_of(digest)).unwrap())
        } else if path.contains("/manifests/") && number < 4 {
            ("503 Service Unavailable", String::new(), Vec::new())
        } else if path.contains("/manifests/") {
            let index = fs::read_to_string(self.layout.directory.join("index.json")).unwrap();
            (
                "200 OK",
                "Content-Type: application/vnd.oci.image.index.v1+json\r\n".to_owned(),
                index.into_bytes(),
            )
        } else {
            let digest = path.rsplit(':').next().unwrap().to_owned();
            (
                "307 Temporary Redirect",
                format!("Location: http://127.0.0.1:{}/storage/{digest}\r\n", self.blobs_at),
                Vec::new(),
            )
        };
        assert!(at_registry != path.starts_with("/storage/"), "{path} is asked at the wrong place");
        let head =
            format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        // The first answer with the layer is cut.
        let cut = body.len() > 100_000 && number == 1 && header("range").is_empty();
        let sent = if cut { &body[..body.len() / 2] } else { &body[..] };
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent));
    }
}

#[test]
#[ignore = "runs alone, with its own cache and credentials"]
fn difficulties_alone() {
    let Ok(registry) = std::env::var("SANDBOXED_DB_TEST_REGISTRY") else { return };
    let directory = tempfile::tempdir().unwrap();
    let snapshot = Snapshot::new(Postgres::new()).relative_to(directory.path());
    let error = snapshot.image(format!("{registry}/x")).start().unwrap_err();
    // It was pulled and unpacked.
    assert_says(&format!("{error:?}"), &["could not find `postgres` in the image sha256:"]);
}

#[test]
fn a_difficult_registry_is_read_and_sees_no_token_elsewhere() {
    let place = tempfile::tempdir().unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(300_000);
    header.set_mode(0o644);
    archive.append_data(&mut header, "file", &vec![7; 300_000][..]).unwrap();
    let (port, served) = Difficult::serve(&place.path().join("layout"), &archive.into_inner().unwrap());
    // `user:word` in base 64.
    let config = format!(r#"{{"auths":{{"127.0.0.1:{port}":{{"auth":"dXNlcjp3b3Jk"}}}}}}"#);
    fs::write(place.path().join("config.json"), config).unwrap();
    passed(
        alone("registries::difficulties_alone")
            .env("SANDBOXED_DB_CACHE", place.path().join("cache"))
            .env("DOCKER_CONFIG", place.path())
            .env("SANDBOXED_DB_TEST_REGISTRY", format!("127.0.0.1:{port}")),
    );
    let requests = served.requests.lock().unwrap();
    let (elsewhere, here): (Vec<_>, Vec<_>) =
        requests.iter().partition(|(line, _)| line.contains("/storage/"));
    assert!(elsewhere.iter().all(|(_, authorization)| authorization.is_empty()), "{elsewhere:?}");
    let tokens: Vec<_> = here.iter().filter(|(line, _)| line.contains("/token?")).collect();
    let [(line, authorization)] = tokens[..] else { panic!("one token is enough: {here:?}") };
    assert!(line.contains("service=here") && line.contains("pull"), "{line}");
    assert_eq!(authorization, "Basic dXNlcjp3b3Jk");
    // Two for the layer, which came in two parts, and one for the configuration.
    assert_eq!(elsewhere.len(), 3, "{elsewhere:?}");
}
