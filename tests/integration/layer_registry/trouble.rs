//! Registries that fail, and the layers that are built then.

use std::fs;
use std::sync::atomic::Ordering;

use sandboxed_db::Redis;
use sandboxed_db_tests::{assert_says, is_exhaustive, is_missing, passed};

use super::machines::{MORE, Machines, filled_registry, registry};
use super::proxy::{Mischief, Proxy};
use crate::registries::DockerRegistry;

#[test]
fn a_layer_is_built_where_the_registry_lies_or_cuts() {
    let Some((registry, machines)) = filled_registry() else { return };
    for (mischief, why) in [
        (Mischief::LiesInArchives, "its digest is"),
        (Mischief::LiesInDocuments, "its digest is"),
        (Mischief::CutsDocuments, "disconnected"),
    ] {
        let proxy = Proxy::serve(&registry, mischief);
        let machine = format!("{mischief:?}");
        let said = machines.run_and_push(&machine, &proxy.layers());
        assert!(proxy.changed.load(Ordering::Relaxed) > 0, "{mischief:?}: {said}");
        let notices = Machines::notices(&said);
        assert!(!notices.is_empty() && notices.len() <= 3, "{mischief:?}: {said}");
        assert_says(&said, &["cannot be used, and", why]);
        assert!(machines.layers(&machine).iter().all(|(_, is_pulled)| !is_pulled), "{mischief:?}: {said}");
    }
    assert_eq!(machines.built(), ["first"; 4]);
    // The part of an archive that has arrived is not asked for again.
    let proxy = Proxy::serve(&registry, Mischief::CutsArchives);
    let said = machines.run("again", &proxy.layers());
    assert!(proxy.changed.load(Ordering::Relaxed) > 0, "{said}");
    assert!(machines.all_pulled("again"), "{said}");
}

#[test]
fn a_registry_that_is_down_or_takes_no_push_is_one_line() {
    let Some((registry, machines)) = filled_registry() else { return };
    let full = Proxy::serve(&registry, Mischief::IsFull);
    let said =
        passed(machines.command("full", &full.layers()).env(MORE, "more").env("SANDBOXED_DB_PUSH", "1"));
    assert_eq!(Machines::notices(&said).len(), 1, "{said}");
    assert_says(&said, &["layers are not pushed to 127.0.0.1", "is full"]);
    let read_only = DockerRegistry::read_only().unwrap();
    let said = machines.run_and_push("read_only", &read_only.layers());
    assert_eq!(Machines::notices(&said).len(), 1, "{said}");
    assert_says(&said, &["layers are not pushed to 127.0.0.1", "is read-only"]);
    let down = registry.layers();
    drop(registry);
    let said = machines.run_and_push("down", &down);
    assert_eq!(Machines::notices(&said).len(), 1, "{said}");
    assert_says(&said, &["cannot be used, and layers are built", "Connection refused"]);
    assert_eq!(machines.built(), ["first", "more", "first", "first"]);
}

#[test]
fn the_first_push_makes_a_repository_that_cannot_be_read() {
    let (Some(registry), false) = (registry(), is_missing::<Redis>()) else { return };
    let machines = Machines::of::<Redis>("redis");
    let proxy = Proxy::serve(&registry, Mischief::HidesRepositories);
    let said = machines.run_and_push("one", &proxy.layers());
    assert_eq!(Machines::notices(&said), [""; 0]);
    let said = machines.run("two", &proxy.layers());
    assert_says(&said, &["does not let `team/test-layers` be read without credentials, if it exists"]);
    machines.run("three", &registry.layers());
    assert!(machines.all_pulled("three"));
    assert_eq!(machines.built(), ["first", "first"]);
}

#[test]
fn a_registry_that_is_slow_is_given_up() {
    if !is_exhaustive("waits for the deadline of a download") {
        return;
    }
    let Some((registry, machines)) = filled_registry() else { return };
    let proxy = Proxy::serve(&registry, Mischief::Drips);
    let said = machines.run("slow", &proxy.layers());
    assert_eq!(Machines::notices(&said).len(), 1, "{said}");
    assert_says(&said, &["cannot be used, and layers are built", "no answer in time"]);
    assert_eq!(machines.built(), ["first", "first"]);
}

#[test]
fn a_registry_that_never_answers_is_given_up() {
    let Some((registry, machines)) = filled_registry() else { return };
    let proxy = Proxy::serve(&registry, Mischief::IsSilent);
    let said = machines.run_and_push("silent", &proxy.layers());
    assert_eq!(Machines::notices(&said).len(), 1, "{said}");
    assert_says(&said, &["cannot be used, and layers are built"]);
    // Another process with this cache does not wait again.
    let asked = proxy.requests.lock().unwrap().len();
    let said = passed(machines.command("silent", &proxy.layers()).env(MORE, "more"));
    assert_eq!(Machines::notices(&said), [""; 0]);
    assert_eq!(proxy.requests.lock().unwrap().len(), asked);
    assert_eq!(machines.built(), ["first", "first", "more"]);
}

#[test]
fn a_token_is_asked_for_pushes_and_shown_to_no_other_host() {
    let (Some(registry), false) = (registry(), is_missing::<Redis>()) else { return };
    let machines = Machines::of::<Redis>("redis");
    let proxy = Proxy::serve(&registry, Mischief::SendsElsewhere);
    // `user:word` in base 64.
    let config = format!(r#"{{"auths":{{"127.0.0.1:{}":{{"auth":"dXNlcjp3b3Jk"}}}}}}"#, proxy.port);
    fs::write(machines.place.path().join("config.json"), config).unwrap();
    let said = machines.run_and_push("one", &proxy.layers());
    assert_eq!(Machines::notices(&said), [""; 0]);
    let requests = proxy.requests.lock().unwrap().clone();
    let (elsewhere, here): (Vec<_>, Vec<_>) =
        requests.iter().partition(|(_, port, _)| *port == proxy.elsewhere);
    assert!(elsewhere.len() > 2, "{requests:?}");
    assert!(elsewhere.iter().all(|(_, _, authorization)| authorization.is_empty()), "{elsewhere:?}");
    let scopes: Vec<_> =
        here.iter().filter(|(line, _, _)| line.contains("/token?")).map(|(line, _, _)| line).collect();
    assert_eq!(scopes.len(), 2, "{scopes:?}");
    assert!(scopes[0].contains("pull&") || scopes[0].contains("pull "), "{scopes:?}");
    assert!(scopes[1].contains("pull%2Cpush") || scopes[1].contains("pull,push"), "{scopes:?}");
    machines.run("two", &registry.layers());
    assert!(machines.all_pulled("two"));
}
