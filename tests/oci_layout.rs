//! Images, written by hand: a layout with any layers, and the installed PostgreSQL as an image.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sandboxed_db::{Engine, Postgres};

/// The digest that names a blob.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hmac_sha256::Hash::hash(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// This machine's architecture, as images name it.
#[must_use]
pub fn image_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A directory in the layout of images.
#[derive(Debug)]
pub struct OciLayout {
    /// Its path.
    pub directory: PathBuf,
}

impl OciLayout {
    /// Writes an image of one layer, an uncompressed archive, with an environment.
    #[must_use]
    pub fn write(directory: &Path, layer: &[u8], env: &[&str]) -> Self {
        Self::write_for(directory, image_architecture(), layer, env)
    }

    /// Writes an image for another architecture.
    #[must_use]
    pub fn write_for(directory: &Path, architecture: &str, layer: &[u8], env: &[&str]) -> Self {
        let layout = Self { directory: directory.to_owned() };
        fs::create_dir_all(directory.join("blobs/sha256")).expect("a directory");
        let layer_digest = layout.blob(layer);
        let env: Vec<_> = env.iter().map(|variable| format!("{variable:?}")).collect();
        let configuration = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{"Env":[{}],"Entrypoint":["/none"]}},
                "rootfs":{{"type":"layers","diff_ids":["sha256:{layer_digest}"]}}}}"#,
            env.join(",")
        );
        let configuration = layout.described("config.v1+json", configuration.as_bytes());
        let layer = layout.described("layer.v1.tar", layer);
        let manifest =
            format!(r#"{{"schemaVersion":2,"config":{{{configuration}}},"layers":[{{{layer}}}]}}"#);
        let manifest = layout.described("manifest.v1+json", manifest.as_bytes());
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{{{manifest}}}]}}"#);
        fs::write(directory.join("index.json"), index).expect("the index");
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("the version");
        layout
    }

    fn described(&self, kind: &str, bytes: &[u8]) -> String {
        let (digest, size) = (self.blob(bytes), bytes.len());
        format!(r#""mediaType":"application/vnd.oci.image.{kind}","digest":"sha256:{digest}","size":{size}"#)
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        fs::write(self.path_of(&digest), bytes).expect("a blob");
        digest
    }

    /// Returns the file of a blob.
    #[must_use]
    pub fn path_of(&self, digest: &str) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest)
    }

    /// Returns the reference to the image.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("oci:{}", self.directory.display())
    }
}

/// Returns an archive of the installed PostgreSQL and the libraries that it needs, and no shell,
/// with these files by paths without the first slash; `None` without an installed one.
#[must_use]
pub fn installed_postgres(further: &[(&str, &str)]) -> Option<Vec<u8>> {
    let installation = Postgres::new().locate().ok()?;
    let bin = fs::canonicalize(installation.bin()).ok()?;
    // Debian's layout; other machines skip the tests.
    let version = bin.parent()?.strip_prefix("/usr/lib/postgresql").ok()?.to_owned();
    let library = Path::new("/usr/lib/postgresql").join(&version).join("lib");
    let share = Path::new("/usr/share/postgresql").join(&version);
    let programs = ["postgres", "initdb", "psql"].map(|name| bin.join(name));
    let mut files: BTreeSet<PathBuf> = programs.iter().cloned().collect();
    for program in &programs {
        let output = Command::new("ldd").arg(program).output().expect("ldd runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words =
            text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        files.extend(words.map(PathBuf::from));
    }
    files.insert("/usr/share/zoneinfo/UTC".into());
    for directory in [library, share, "/usr/lib/locale/C.utf8".into(), "/usr/share/zoneinfo/Etc".into()] {
        add_tree(&directory, &mut files);
    }
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        // Links are followed: a library has the name by which it is looked for.
        archive.append_path_with_name(&file, file.strip_prefix("/").ok()?).expect("a readable file");
    }
    for (path, contents) in further {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(contents.len() as u64);
        archive.append_data(&mut header, path, contents.as_bytes()).expect("an archive in memory");
    }
    Some(archive.into_inner().expect("an archive in memory"))
}

fn add_tree(directory: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            // The code for the compiler of queries is large, and not needed.
            if path.file_name().is_none_or(|name| name != "bitcode" && name != "man") {
                add_tree(&path, files);
            }
        } else if path.is_file() && !path.to_string_lossy().contains("llvmjit") {
            files.insert(path);
        }
    }
}
