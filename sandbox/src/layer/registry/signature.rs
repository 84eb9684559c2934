//! Signatures of layers, as `cosign sign --key` makes and stores them: beside the artifact, in a
//! tag named for the digest of its manifest.
//!
//! "Cosign Signature Specifications" of the Sigstore project, with keys of ECDSA on the curve
//! P-256, which `cosign generate-key-pair` makes. The manifest covers the whole layer by digests,
//! its name included, so the name of the place in the signature does not matter.

use std::collections::BTreeMap;
use std::{fs, io, path::Path};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;

use crate::oci::{Blob, Repository, Sha256};

/// The beginning of a public key of that curve, RFC 5480: its algorithm, and that a point follows.
const BEGINNING: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// The length of such a key.
const LENGTH: usize = 91;
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const KIND: &str = "cosign container image signature";
/// The most signatures of a layer that are looked at.
const MOST: usize = 16;

/// The public key of those who may sign layers.
#[derive(Debug, Clone)]
pub(super) struct Key(Vec<u8>);

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Sha256,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Sha256,
}

impl Key {
    /// Reads the file `cosign.pub`.
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        Self::parse(&fs::read_to_string(file)?).ok_or_else(|| {
            io::Error::other("it is no public key of ECDSA on P-256, as `cosign generate-key-pair` makes it")
        })
    }

    fn parse(pem: &str) -> Option<Self> {
        let (_, rest) = pem.split_once("-----BEGIN PUBLIC KEY-----")?;
        let (text, _) = rest.split_once("-----END PUBLIC KEY-----")?;
        let text: String = text.split_whitespace().collect();
        let key = STANDARD.decode(text).ok()?;
        let is_known = key.len() == LENGTH && key.starts_with(&BEGINNING);
        // The last byte of the beginning is the first of the point.
        is_known.then(|| Self(key[BEGINNING.len() - 1..].to_vec()))
    }

    /// Checks that the artifact with that manifest is signed with the key.
    pub(super) fn check(&self, repository: &Repository, manifest: Sha256) -> io::Result<()> {
        let tag = format!("sha256-{}.sig", manifest.hex());
        let Some(signatures) = repository.manifest(&tag)? else {
            return Err(io::Error::other("it has no signature"));
        };
        let broken = |error| io::Error::other(format!("its signatures are broken: {error}"));
        let signatures: Manifest = serde_json::from_slice(&signatures).map_err(broken)?;
        for signature in signatures.layers.iter().filter(|it| it.media_type == PAYLOAD).take(MOST) {
            let payload = repository.document(Blob { digest: signature.digest, size: signature.size })?;
            let text = signature.annotations.get(SIGNATURE).map(String::as_str).unwrap_or_default();
            if self.has_signed(&payload, text, manifest) {
                return Ok(());
            }
        }
        Err(io::Error::other("it has no signature of the key"))
    }

    /// Returns `true` for a payload that names the manifest, and a signature of it by the key.
    fn has_signed(&self, payload: &[u8], signature: &str, manifest: Sha256) -> bool {
        let Ok(signature) = STANDARD.decode(signature.trim()) else { return false };
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0);
        if key.verify(payload, &signature).is_err() {
            return false;
        }
        let names =
            |payload: Payload| payload.critical.image.digest == manifest && payload.critical.kind == KIND;
        serde_json::from_slice(payload).is_ok_and(names)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key that openssl(1) has made, and its signature of a payload.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8I8T4h330NbpG17lvDBKgvKxqsI4
Rz8GmtAd46p6ZTPqeqqpMvusga8s5DDq4mEwamPzpQ7UTd3SWhkVJ1EArA==
-----END PUBLIC KEY-----
";
    const SIGNED: &str =
        "MEUCIQDVcZkx1GysV8sNd+qdoV3fmIGcaYlZFNxnCduRfXgFawIgaKwLkbXRe8TBF7jiCVbuW9KzOCmAHxw9huwt5Pz+wR0=";

    fn payload() -> String {
        let identity = r#""identity":{"docker-reference":"ghcr.io/team/test-layers"}"#;
        let image = format!(r#""image":{{"docker-manifest-digest":"{}"}}"#, Sha256::of(b"abc"));
        format!(r#"{{"critical":{{{identity},{image},"type":"{KIND}"}},"optional":null}}"#)
    }

    #[test]
    fn a_signature_counts_for_its_manifest_alone() {
        let key = Key::parse(KEY).unwrap();
        assert!(key.has_signed(payload().as_bytes(), SIGNED, Sha256::of(b"abc")));
        assert!(!key.has_signed(payload().as_bytes(), SIGNED, Sha256::of(b"x")));
        let other = payload().replace("team", "other");
        assert!(!key.has_signed(other.as_bytes(), SIGNED, Sha256::of(b"abc")));
        for signature in ["", "AAAA", "MEUC", &SIGNED.replace("Nd", "Ne")] {
            assert!(!key.has_signed(payload().as_bytes(), signature, Sha256::of(b"abc")), "{signature}");
        }
    }

    #[test]
    fn other_keys_are_refused() {
        let p384 = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEITXU99W3mCyo5h1idDaK8EVgrC7wH0I/
1iv5SL2Knotxup9TH962ClXhaP+MBHcHyJwdRRsFJE+CUNixYq4n+pDSCq7NomXN
jkEikNWhQA5/RTTvHQ8lez0KGHSYQk6k
-----END PUBLIC KEY-----";
        for text in ["", "ssh-ed25519 AAAA", p384, &KEY.replace("MFkw", "MFkx"), &KEY[..100]] {
            assert!(Key::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_signature_panics(payload: Vec<u8>, signature in "[A-Za-z0-9+/=]{0,100}") {
            prop_assert!(!Key::parse(KEY).unwrap().has_signed(&payload, &signature, Sha256::of(b"abc")));
        }
    }
}
