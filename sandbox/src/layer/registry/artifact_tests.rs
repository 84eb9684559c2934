use proptest::prelude::*;

use super::*;
use crate::layer::manifest::{FileEntry, Kind};

fn digest(byte: u8) -> Digest {
    blake3::hash(&[byte]).to_hex().as_str().parse().unwrap()
}

fn described(steps: &[&str], files: &[&str]) -> (Manifest, Contents) {
    let directory = FileEntry { path: "".into(), mode: 0o700, kind: Kind::Directory };
    let file = |name: &&str| {
        let kind = Kind::File { size: 1, blake3: blake3::hash(b"x").to_hex().to_string() };
        FileEntry { path: name.into(), mode: 0o600, kind }
    };
    let entries: Vec<_> = std::iter::once(directory).chain(files.iter().map(file)).collect();
    let contents = Contents::of(&entries);
    let manifest = Manifest {
        digest: String::new(),
        engine: "postgres".into(),
        version: "postgres (PostgreSQL) 17.6".into(),
        parent: Some(digest(1).to_string()),
        steps: steps.iter().map(|step| (*step).to_owned()).collect(),
        oldest_step: Some(UNIX_EPOCH + Duration::from_secs(5)),
        run: "r".into(),
        pipeline: Some("github:1".into()),
        origin: None,
        entries,
    };
    (manifest, contents)
}

/// Two links and their documents.
fn documents() -> (Vec<u8>, Vec<u8>) {
    let ((base, below), (top, above)) = (described(&[], &["a"]), described(&["1.sql", "2.sql"], &["b"]));
    let links =
        [Link::of(digest(1), &base, &below, &Contents::default()), Link::of(digest(2), &top, &above, &below)];
    let archive =
        |byte: u8| Packed::new(Blob { digest: Sha256::of(&[byte]), size: 9 }, Sha256::of(&[byte, 1]));
    let archives = [archive(1), archive(2)];
    let configuration = configuration(&links, &archives, UNIX_EPOCH).unwrap();
    let blob = Blob { digest: Sha256::of(&configuration), size: configuration.len() as u64 };
    (manifest(&links, &archives, blob, UNIX_EPOCH).unwrap(), configuration)
}

fn read(manifest: &[u8], configuration: &[u8]) -> Result<Artifact, String> {
    Artifact::parse(&Named::parse(manifest)?, configuration, digest(2))
}

#[test]
fn documents_are_read_as_they_were_written() {
    let (manifest, configuration) = documents();
    let artifact = read(&manifest, &configuration).unwrap();
    let [base, top] = &artifact.links[..] else { panic!("{artifact:?}") };
    assert_eq!((base.link.digest, top.link.digest), (digest(1), digest(2)));
    assert_eq!(top.contents, described(&[], &["b"]).1);
    assert_eq!(top.archive.blob().digest, Sha256::of(&[2]));
    let own = top.link.manifest(&top.contents, "here", "a.io/x".into());
    assert_eq!((own.steps.len(), own.run.as_str(), own.origin.as_deref()), (2, "here", Some("a.io/x")));
    assert_eq!(own.oldest_step, Some(UNIX_EPOCH + Duration::from_secs(5)));
    let text = String::from_utf8(manifest).unwrap();
    for part in
        ["postgres: 1.sql … 2.sql (2 steps)", "github:1", "1970-01-01T00:00:00Z", &digest(1).to_string()]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn documents_that_do_not_fit_are_refused() {
    let (manifest, configuration) = documents();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (manifest, configuration) = (text(&manifest), text(&configuration));
    let contents = described(&[], &["b"]).1.hash();
    let (one, other) = (digest(2).to_string(), digest(3).to_string());
    for (from, to, why) in [
        (one.as_str(), other.as_str(), "another layer"),
        (&contents, &other, "hash of its entries"),
        ("\"format\":1", "\"format\":2", "its format is 2"),
        ("\"path\":\"b\"", "\"path\":\"../b\"", "not accepted"),
        ("1.sql", "\\u001b[2J", "a text in its configuration"),
        ("\"removed\":[\"a\"]", "\"removed\":[\"z\"]", "not there"),
    ] {
        assert!(configuration.contains(from), "{from}");
        let changed = configuration.replace(from, to);
        let refused = read(manifest.as_bytes(), changed.as_bytes()).unwrap_err();
        assert!(refused.contains(why), "{from}: {refused}");
    }
    for (from, to, why) in [
        (ARTIFACT, "x/y", "no layer of this library"),
        ("\"size\":9", "\"size\":18446744073709551615", "more than 32 GiB"),
        ("\"size\":9", "\"size\":-1", "broken"),
    ] {
        let refused = Named::parse(manifest.replace(from, to).as_bytes()).unwrap_err();
        assert!(refused.contains(why), "{from}: {refused}");
    }
    let named = Named::parse(manifest.as_bytes()).unwrap();
    let one = Named { archives: named.archives[..1].to_vec(), ..named };
    assert!(Artifact::parse(&one, configuration.as_bytes(), digest(2)).unwrap_err().contains("numbers"));
}

proptest! {
    #[test]
    fn no_change_of_a_document_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), of_manifest in any::<bool>()) {
        let (mut manifest, mut configuration) = documents();
        let bytes = if of_manifest { &mut manifest } else { &mut configuration };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(artifact) = read(&manifest, &configuration) {
            prop_assert!(artifact.links.iter().all(|link| link.contents.check().is_ok()));
        }
    }
}
