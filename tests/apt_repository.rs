//! A repository of packages for apt-get, made by a test and served from it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::{run_checked, skip};

/// The answer to a request for a package file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The file.
    File,
    /// The file with other contents of the same size.
    Damaged,
    /// None, until the repository answers otherwise.
    Silence,
}

/// A package to be made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Package<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its dependencies, as in a control file.
    pub depends: &'a str,
    /// Its files and their contents, by paths without the first slash.
    pub files: &'a [(&'a str, &'a str)],
    /// The script that runs when the package is configured.
    pub script: &'a str,
}

/// A repository whose packages have the version 1.0. It is served by HTTP until the process ends.
#[derive(Debug)]
pub struct AptRepository {
    directory: TempDir,
    state: Arc<Mutex<Served>>,
}

#[derive(Debug)]
struct Served {
    answer: Answer,
    /// The names of the package files that were asked for.
    asked: Vec<String>,
}

impl AptRepository {
    /// Returns a repository without packages. Skips the test without apt-get and dpkg-deb.
    #[must_use]
    pub fn serve() -> Option<Self> {
        let found = |program| Path::new("/usr/bin").join(program).exists();
        if !found("apt-get") || !found("dpkg-deb") {
            skip("there is no apt-get and dpkg-deb");
            return None;
        }
        let directory = TempDir::new().expect("a temporary directory");
        let state = Arc::new(Mutex::new(Served { answer: Answer::File, asked: Vec::new() }));
        let repository = Self { directory, state };
        fs::create_dir(repository.files()).expect("there is room");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        repository.configure("[trusted=yes]", address);
        let (files, state) = (repository.files(), repository.state.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, state) = (files.clone(), state.clone());
                // A client that is gone harms nobody.
                std::thread::spawn(move || drop(respond(&stream, &files, &state)));
            }
        });
        Some(repository)
    }

    fn files(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    /// Adds a package.
    pub fn add(&self, package: &Package<'_>) {
        let Package { name, depends, files, script } = *package;
        let source = self.directory.path().join(name);
        let depends = if depends.is_empty() { String::new() } else { format!("Depends: {depends}\n") };
        let control = format!(
            "Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n{depends}\
             Description: a test\n"
        );
        let mut all = vec![("DEBIAN/control", control.as_str())];
        if !script.is_empty() {
            all.push(("DEBIAN/postinst", script));
        }
        for (path, contents) in all.iter().chain(files) {
            let path = source.join(path);
            fs::create_dir_all(path.parent().expect("it is below the directory")).expect("there is room");
            fs::write(path, contents).expect("there is room");
        }
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        if !script.is_empty() {
            run_checked("chmod", &["755", &text(&source.join("DEBIAN/postinst"))]);
        }
        let file = format!("{name}_1.0_all.deb");
        let archive = self.files().join(&file);
        run_checked(
            "dpkg-deb",
            &["--root-owner-group", "-Znone", "--build", &text(&source), &text(&archive)],
        );
        let sum = Command::new("sha256sum").arg(&archive).output().expect("sha256sum runs").stdout;
        let sum = String::from_utf8_lossy(&sum).split(' ').next().unwrap_or_default().to_owned();
        let size = fs::metadata(&archive).expect("it was made").len();
        let index = self.files().join("Packages");
        let before = fs::read_to_string(&index).unwrap_or_default();
        let entry = format!("{control}Filename: ./{file}\nSize: {size}\nSHA256: {sum}\n\n");
        fs::write(index, before + &entry).expect("there is room");
    }

    /// Sets the answer to requests for package files from now on.
    pub fn answer(&self, answer: Answer) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).answer = answer;
    }

    /// Returns the names of the package files that were asked for.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }

    /// Makes apt-get ask at a port where nobody answers.
    pub fn disappear(&self) {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        self.configure("[trusted=yes]", free.expect("a free port"));
    }

    /// Makes apt-get check signatures, which the repository does not have.
    pub fn distrust(&self) {
        let sources = fs::read_to_string(self.sources()).expect("they were written");
        fs::write(self.sources(), sources.replace("[trusted=yes] ", "")).expect("there is room");
    }

    fn sources(&self) -> PathBuf {
        self.directory.path().join("sources.list")
    }

    fn configure(&self, options: &str, address: SocketAddr) {
        fs::write(self.sources(), format!("deb {options} http://{address}/ ./\n")).expect("there is room");
        let text = format!(
            "Dir::Etc::sourcelist {:?};\nDir::Etc::sourceparts \"-\";\nAcquire::http::Proxy \"DIRECT\";\n\
             Acquire::Retries \"0\";\n",
            self.sources()
        );
        fs::write(self.config(), text).expect("there is room");
    }

    /// Returns the line by which a file of sources names it.
    #[must_use]
    pub fn source(&self) -> String {
        fs::read_to_string(self.sources()).expect("it was written")
    }

    /// Returns the file of settings for `APT_CONFIG`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("apt.conf")
    }
}

/// Answers one request.
fn respond(mut stream: &TcpStream, files: &Path, state: &Mutex<Served>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let name = request.split(' ').nth(1).unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let state = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let is_package = name.ends_with(".deb");
    if is_package {
        state().asked.push(name.to_owned());
        while state().answer == Answer::Silence {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let Ok(mut contents) = fs::read(files.join(name)) else {
        return stream.write_all(b"HTTP/1.1 404 None\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    if is_package && state().answer == Answer::Damaged {
        contents.reverse();
    }
    let length = contents.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(&contents)
}
