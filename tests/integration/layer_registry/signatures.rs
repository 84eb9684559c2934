//! Layers that are used only if they are signed.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use sandboxed_db_tests::{assert_says, is_installed, passed, sha256, skip};

use super::machines::filled_registry;
use crate::registries::DockerRegistry;

/// Sends a request to a registry, and returns the path in the header `Location` of its answer.
fn send(registry: &DockerRegistry, request: &str, kind: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", registry.port)).unwrap();
    let (port, length) = (registry.port, body.len());
    let head = format!("{request} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\n");
    let head = format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{request}: {answer}");
    let place = answer.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap_or_default();
    place.split_once(&format!(":{port}")).map(|(_, path)| path.to_owned()).unwrap_or_default()
}

/// Signs a layer as cosign does, by openssl(1).
fn sign(registry: &DockerRegistry, directory: &Path, digest: &str) {
    let repository = "/v2/team/test-layers";
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let there = format!("docker://{}:{digest}", registry.layers());
    let manifest = sha256(&run("skopeo", &["inspect", "--raw", "--tls-verify=false", &there]));
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":""}},
            "image":{{"docker-manifest-digest":"sha256:{manifest}"}},
            "type":"cosign container image signature"}},"optional":null}}"#
    );
    fs::write(directory.join("payload"), &payload).unwrap();
    let signing = "openssl dgst -sha256 -sign cosign.key payload | base64 --wrap 0";
    let signature = String::from_utf8(run("sh", &["-c", signing])).unwrap();
    let push = |bytes: &[u8]| {
        let place = send(registry, &format!("POST {repository}/blobs/uploads/"), "text/plain", b"");
        let digest = sha256(bytes);
        send(registry, &format!("PUT {place}&digest=sha256:{digest}"), "application/octet-stream", bytes);
        format!(r#""digest":"sha256:{digest}","size":{}"#, bytes.len())
    };
    let (config, payload) = (push(b"{}"), push(payload.as_bytes()));
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let signatures = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json",{config}}},
            "layers":[{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json",{payload},
            "annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}]}}"#
    );
    send(registry, &format!("PUT {repository}/manifests/sha256-{manifest}.sig"), kind, signatures.as_bytes());
}

#[test]
fn only_signed_layers_are_used_where_a_key_is_given() {
    let Some((registry, machines)) = filled_registry() else { return };
    if !is_installed("openssl") || !is_installed("skopeo") {
        return skip("openssl or skopeo is not installed");
    }
    let place = machines.place.path();
    let keys = "openssl ecparam -genkey -name prime256v1 -noout -out cosign.key && \
                openssl ec -in cosign.key -pubout -out cosign.pub";
    let made = Command::new("sh").args(["-c", keys]).current_dir(place).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let run = |machine: &str| {
        let mut command = machines.command(machine, &registry.layers());
        passed(command.env("SANDBOXED_DB_REGISTRY_KEY", place.join("cosign.pub")))
    };
    let said = run("strict");
    assert_says(&said, &["cannot be used, and is built: it has no signature"]);
    assert!(machines.layers("strict").iter().all(|(_, is_pulled)| !is_pulled), "{said}");
    for (digest, _) in machines.layers("one") {
        sign(&registry, place, &digest);
    }
    let said = run("two");
    assert!(machines.all_pulled("two"), "{said}");
    assert_eq!(machines.built(), ["first", "first"]);
}
